"""Writing a file whole or not at all, and numbers for JSON."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` in one move, so that a kill leaves the old file or the new. Raises OSError."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def json_text(value: Any, **how: Any) -> str:
    """JSON of plain values with null for NaN and infinity, which it has not. ``how``: as json.dumps takes it.

    All that is written goes through here; a test says so.
    """
    return json.dumps(without_nan(value), allow_nan=False, **how)


def without_nan(value: Any) -> Any:
    """JSON has no NaN and no infinity: None instead, at any depth."""
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_float(value: Any) -> float:
    """NaN for what is no number: JSON has null for NaN."""
    return float(value) if isinstance(value, int | float) else math.nan


def save_picture(picture: Image, path: Path) -> None:
    """A PNG, whole or not at all. Raises OSError."""
    partial = path.with_name(f".{path.name}.partial")
    picture.save(partial, format="PNG")
    os.replace(partial, path)
