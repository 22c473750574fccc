"""Which of a data set's parts are to be trained on, told by their names as Hugging Face's library tells it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from cgrpo.errors import UserError

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
    """Of parts of several splits only train's, and those whose names say nothing; of one split, or none, all.

    Raises UserError if there are several splits, but no train.
    """
    splits = {path: split_of(path.stem) for path in files}
    names = sorted({name for name in splits.values() if name})
    if len(names) < 2:
        return list(files)
    if TRAIN in names:
        return [path for path in files if splits[path] in (TRAIN, "")]
    if len(files) > sum(map(bool, splits.values())):
        return list(files)
    raise UserError(f"{where}: holds the splits {', '.join(names)}, and none is called train; give one file")


def training_folder(folder: Path) -> Path | None:
    """The folder train/ in one that has others beside it, as test/; None where folders mean something else."""
    splits = {path: split_of(path.name) for path in folder.iterdir() if path.is_dir() and split_of(path.name)}
    if len(set(splits.values())) < 2:
        return None
    return next((path for path in sorted(splits) if splits[path] == TRAIN), None)
