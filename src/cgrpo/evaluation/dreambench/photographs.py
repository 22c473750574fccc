"""DreamBench's photographs: a folder of SUBJECT/NN.jpg that the user has."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cgrpo.errors import UserError
from cgrpo.evaluation.dreambench.lists import SUFFIXES, Row, known

HOME = "https://github.com/google/dreambooth (folder dataset)"


def subjects_of(rows: Iterable[Row]) -> list[str]:
    """The rows' subjects, each once."""
    return list(dict.fromkeys(name for row in rows for name in row.subjects))


def photographs(data: Path, subject: str) -> tuple[str, ...]:
    """A subject's photographs in order: "cat/00.jpg", ..., whatever pictures lie in its folder."""
    files = sorted((data / subject).glob("*"))
    return tuple(f"{subject}/{f.name}" for f in files if f.suffix.lower() in SUFFIXES and not f.name.startswith("."))


def check_photographs(data: Path, subjects: Sequence[str]) -> dict[str, Any]:
    """What the subjects' photographs are: as published, the re-encoded copy, or something else.

    Returns ``{kind, originals, copies, unknown, missing}``: ``kind`` is "originals", "re-encoded copy", "unknown" or
    "mixed", ``unknown`` and ``missing`` list files. Nothing is refused but a folder without a subject's reference,
    which is a UserError.
    """
    for subject in subjects:
        reference = data / subject / known()["subjects"][subject]["reference"]
        if not reference.is_file():
            raise UserError(f"{reference}: no such photograph; --data must be DreamBench's folder from {HOME}")
    found: Counter[str] = Counter()
    unknown, missing = [], []
    for subject in subjects:
        listed = known()["subjects"][subject]["photographs"]
        missing += [f"{subject}/{name}" for name in listed if not (data / subject / name).is_file()]
        for photograph in photographs(data, subject):
            original, copy = listed.get(Path(photograph).name, ("", ""))
            actual = hashlib.sha256((data / photograph).read_bytes()).hexdigest()
            kind = {original: "originals", copy: "re-encoded copy"}.get(actual, "unknown")
            found[kind] += 1
            unknown += [photograph] if kind == "unknown" else []
    return {
        "kind": next(iter(found)) if len(found) == 1 else "mixed",
        "originals": found["originals"],
        "copies": found["re-encoded copy"],
        "unknown": unknown,
        "missing": missing,
    }
