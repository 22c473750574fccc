"""Reading and writing files: errors that name the path, files whole or not at all, folder locks, numbers for JSON."""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgrpo.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image


@contextmanager
def reading(path: Path | str, cure: str = "") -> Iterator[None]:
    """Turn an OSError or ValueError within into a UserError that names ``path``; a UserError passes as it is.

    ValueError is what parsers raise (JSON, TOML, decoding). ``cure`` says what to do about a file that exists and
    can't be parsed.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror or error})") from error
    except ValueError as error:
        raise UserError(f"{path}: can't be read ({error})", cure) from error


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Turn an OSError within into a UserError that names ``path``."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: can't be written ({error.strerror or error})") from error


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` in one move, so that a kill leaves the old file or the new. Raises OSError."""
    with _partial(path) as partial:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)


@contextmanager
def _partial(path: Path) -> Iterator[Path]:
    """A place beside ``path`` to write to first. What an error leaves there, on a full disk perhaps, is removed."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


@contextmanager
def alone(folder: Path) -> Iterator[bool]:
    """Whether no other process has ``folder``, which this one then has until the end, however that comes.

    True as well where that can't be known: a folder that can't be made or opened, a file system without locks.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = os.open(folder, os.O_RDONLY)
    except OSError:  # whoever writes there will tell
        yield True
        return
    try:
        yield _lock(held)
    finally:
        os.close(held)


def _lock(held: int) -> bool:
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


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
    with _partial(path) as partial:
        picture.save(partial, format="PNG")
        os.replace(partial, path)
