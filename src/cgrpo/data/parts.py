"""The parts of a data set: which files and folders are trained on, reading one after another, rows set apart.

Splits are recognised by their names, as Hugging Face's library recognises them.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from cgrpo.data.tasks import Entry, Fault, LeftOut
from cgrpo.errors import UserError

T = TypeVar("T")
TRAIN = "train"
_WORDS = {"training": TRAIN, "testing": "test", "val": "validation", "valid": "validation", "dev": "validation"}
_WORDS |= {"evaluation": "test", "eval": "test"}
_WORD = re.compile(r"(?:^|[^a-z0-9])(train(?:ing)?|test(?:ing)?|val(?:id(?:ation)?)?|dev|eval(?:uation)?)(?![a-z])")
_PIECE = re.compile(r"(.+?)-\d+-of-\d+(?:-[0-9a-f]+)?")  # the hash: as the library wrote them up to 2023


def split_of(name: str) -> str:
    """ "train" of train-00000-of-00032-0a1b2c, train_003 and toys-train; "" where a name says nothing."""
    words: list[str] = _WORD.findall(name.lower())
    if words:  # the last: a stress-test has a train, too
        return _WORDS.get(words[-1]) or words[-1]
    piece = _PIECE.fullmatch(name)
    return piece[1] if piece else ""


def for_training(files: Sequence[Path], where: Path) -> list[Path]:
    """Of files of several splits only train's, and those whose names say nothing; of one split, or none, all.

    Raises UserError if there are several splits, but no train.
    """
    splits = {path: split_of(path.stem) for path in files}
    names = sorted({name for name in splits.values() if name})
    if len(names) < 2:
        return list(files)
    if TRAIN in names:
        return [path for path in files if splits[path] in (TRAIN, "")]
    if "" in splits.values():
        return list(files)
    raise UserError(f"{where}: holds the splits {', '.join(names)}, and none is called train", "give one file")


def training_folder(folder: Path) -> Path | None:
    """The folder train/ in one that has others next to it, as test/; None where folders mean something else."""
    splits = {path: split_of(path.name) for path in folder.iterdir() if path.is_dir() and split_of(path.name)}
    if len(set(splits.values())) < 2:
        return None
    return next((path for path in sorted(splits) if splits[path] == TRAIN), None)


def each_file(
    files: Iterable[Path], rows_of: Callable[[Path], Iterable[Entry | Fault | LeftOut]]
) -> list[Entry | Fault | LeftOut]:
    """The rows of all files. A file that can't be read (on) is a Fault in its place; it raises if nothing else is."""
    rows: list[Entry | Fault | LeftOut] = []
    errors: list[UserError] = []
    for file in files:
        try:
            for row in rows_of(file):
                rows.append(row)
        except UserError as error:
            errors.append(error)
            rows.append(Fault(file.name, str(error)))
    if errors and len(rows) == len(errors):
        raise errors[0]
    return rows


def set_apart(items: Sequence[T], count: int, what: str) -> tuple[list[T], list[T]]:
    """``items`` without ``count`` of them, and those, spread evenly over the list so that every kind is among them.

    Raises UserError, calling the items ``what``, if none would be left.
    """
    if not 0 <= count < len(items):
        raise UserError(f"{len(items)} {what} can't spare {count} held-out ones", "hold out fewer")
    apart = {int((n + 0.5) * len(items) / count) for n in range(count)}
    return [item for n, item in enumerate(items) if n not in apart], [items[n] for n in sorted(apart)]
