"""Writing a file whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

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


def save_picture(picture: Image, path: Path) -> None:
    """A PNG, whole or not at all. Raises OSError."""
    partial = path.with_name(f".{path.name}.partial")
    picture.save(partial, format="PNG")
    os.replace(partial, path)
