"""Reading and writing files: errors that name the path, files whole or not at all, folder locks, numbers for JSON."""

from __future__ import annotations

import fcntl
import itertools
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgrpo.errors import UserError
from cgrpo.text import cure_for, first_bytes

if TYPE_CHECKING:
    from PIL.Image import Image


@contextmanager
def reading(path: Path | str, cure: str = "", *more: type[Exception]) -> Iterator[None]:
    """Turn an OSError or ValueError within into a UserError that names ``path``; a UserError passes as it is.

    ValueError is what parsers raise (JSON, TOML, decoding); ``more`` are further exceptions of a parser. ``cure`` says
    what to do about a file that can't be parsed, unless its first bytes show that it is something else altogether.
    """
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (OSError, ValueError, *more) as error:
        of_the_system = error.strerror if isinstance(error, OSError) else None
        reason = of_the_system or " ".join(str(error).split())
        better = "" if of_the_system else cure_for(first_bytes(Path(path)), cure)
        raise UserError(f"{path}: can't be read ({reason})", better) from error


def read_table(path: Path, cure: str = "") -> dict[str, Any]:
    """The table of a JSON file. Raises UserError as ``reading``, also for any other value."""
    with reading(path, cure):
        table = json.loads(path.read_text(encoding="utf-8-sig"))
        if not isinstance(table, dict):
            raise ValueError("no table")
    return table


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Turn an OSError within into a UserError that names ``path``."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: can't be written ({error.strerror or error})") from error


def new_folder(first: Path) -> Path:
    """Make a folder that nobody else has: ``first``, or ``first``-2 and so on. Raises UserError.

    Jobs of an array may ask in the same second.
    """
    for number in itertools.count(1):
        folder = first if number == 1 else first.with_name(f"{first.name}-{number}")
        with writing(folder), suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
    raise AssertionError


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A place to fill, which becomes ``folder`` at the end and is removed after an error. Raises UserError.

    ``folder`` may be an empty folder, or nothing yet.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        with writing(folder):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            yield partial
            if folder.is_dir():
                folder.rmdir()
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` in one move, so that a kill leaves the old file or the new. Raises OSError."""
    with partial_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def partial_file(path: Path) -> Iterator[Path]:
    """A file next to ``path`` to write first, which then takes its place. It is removed after an error."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


@contextmanager
def alone(folder: Path) -> Iterator[bool]:
    """Lock ``folder`` for this process. False if another process holds it. The lock ends with the process.

    True as well where nobody can know: a folder that can't be made or opened, a file system without locks.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = os.open(folder, os.O_RDONLY)
    except OSError:  # whoever writes there will report it
        yield True
        return
    free = True
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        free = not isinstance(error, BlockingIOError)
    try:
        yield free
    finally:
        os.close(held)


def json_text(value: Any, **how: Any) -> str:
    """JSON of plain values, null for NaN and infinity. ``how``: options of json.dumps. All JSON is written by this."""
    return json.dumps(without_nan(value), allow_nan=False, **how)


def without_nan(value: Any) -> Any:
    """``value`` with None for NaN and infinity, which JSON lacks, at any depth."""
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_float(value: Any) -> float:
    """A number read from JSON; NaN for null and for anything else that is no number."""
    return float(value) if isinstance(value, int | float) else math.nan


CONTACT_SHEET = "sheet.png"  # an overview of the pictures next to it, which is none of them
_MARK = ("Comment", "contact sheet by cgrpo")


def save_picture(picture: Image, path: Path) -> None:
    """A PNG, whole or not at all; one called sheet.png is marked as a contact sheet. Raises OSError."""
    from PIL.PngImagePlugin import PngInfo

    mark = PngInfo()
    if path.name == CONTACT_SHEET:
        mark.add_text(*_MARK)
    with partial_file(path) as partial:
        picture.save(partial, format="PNG", pnginfo=mark)


def is_contact_sheet(path: Path) -> bool:
    """Whether ``save_picture`` wrote it as a contact sheet, and not somebody's photo of that name."""
    if path.name == CONTACT_SHEET:
        with suppress(OSError), path.open("rb") as file:
            return _MARK[1].encode() in file.read(256)
    return False
