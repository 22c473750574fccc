"""Is a data set fit to train on? Everything that is wrong with it, not just the first thing."""

from __future__ import annotations

import functools
import hashlib
import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from cgrpo.data.archives import is_file, is_member, is_private, length, read_bytes
from cgrpo.data.folders import is_captioned
from cgrpo.data.leftovers import leftover
from cgrpo.data.looks import Look, alike, look_of
from cgrpo.data.masks import fit_mask, mask_fault, read_mask
from cgrpo.data.notes import notes_of, notes_on
from cgrpo.data.readers import scan
from cgrpo.data.rows import Fault, LeftOut, Rows
from cgrpo.errors import UserError
from cgrpo.pictures import opened, read_picture
from cgrpo.types import Task

Kind = Literal["row", "missing", "broken", "duplicate", "near-duplicate", "leftover", "mask"]
KINDS: tuple[Kind, ...] = ("row", "missing", "broken", "duplicate", "near-duplicate", "leftover", "mask")

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Problem:
    """What is wrong with the row called ``id``, the ``row``-th of the data set (from 0).

    "row": no record, a field is at fault. "missing", "broken": a picture. "duplicate": the id, the whole task, or a
    picture's content was there before. "near-duplicate": a picture looks like another's (looks.py says when).
    "leftover": the prompt is a chat model's chatter. "mask": it is empty, full, of another shape, or not to be read.
    """

    id: str
    row: int
    kind: Kind
    message: str


@dataclass(frozen=True)
class CheckReport:
    """``pictures`` counts distinct files; ``left_out`` those of the ``rows`` that the set's own quality filter drops.

    ``quick``: no picture was decoded, so damage and likeness weren't looked for. ``notes`` are about the whole set:
    what is no fault of a row, and may yet not be meant.
    """

    manifest: str
    rows: int
    left_out: int
    pictures: int
    quick: bool
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[Kind, int]:
        """Problems by kind, all kinds."""
        found = Counter(problem.kind for problem in self.problems)
        return {kind: found[kind] for kind in KINDS}

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        head = {key: value for key, value in vars(self).items() if key != "problems"}
        return head | {"counts": self.counts, "problems": [asdict(problem) for problem in self.problems]}


@dataclass(frozen=True)
class _Use:
    """Where a file first turns up."""

    row: int
    id: str
    role: str


@dataclass(frozen=True)
class _Seen:
    """What was found out about a file: a problem, or its content's SHA-256 and its look."""

    kind: Kind | None = None
    message: str = ""
    digest: str | None = None
    look: Look | None = None


def check_manifest(
    path: Path,
    *,
    root: Path | None = None,
    quick: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> CheckReport:
    """Check whatever ``read_tasks`` reads; pictures are opened as training will.

    Each file is looked at once, by ``workers`` threads (default: one a core): its header, then the whole picture.
    ``quick``: headers only, and equal contents among files of one size. ``progress`` is told (done, all) files.
    Where rows can't share a picture (parquet, a WebDataset's tar), embedded pictures of equal bytes count as one file
    that they share. Raises UserError only if no row can be found at all.
    """
    rows = scan(path, root)
    paths = list(_uses(rows))
    seen = _look_at(paths, quick, workers or os.cpu_count() or 1, progress)
    rows = _shared(rows, seen)
    uses = _uses(rows)
    problems = [
        *_row_problems(rows),
        *_file_problems(rows, seen),
        *_copies(uses, seen),
        *_near_copies(uses, seen),
        *([] if quick else _mask_problems(rows, seen)),
    ]
    problems = [replace(one, id=_printable(one.id), message=_printable(one.message)) for one in problems]
    problems.sort(key=lambda problem: (problem.row, KINDS.index(problem.kind)))
    left_out = sum(isinstance(row, LeftOut) for row in rows)
    notes = (*notes_on(rows), *(notes_of(path) if path.is_dir() and is_captioned(path) else ()))
    return CheckReport(str(path), len(rows), left_out, len(paths), quick, tuple(problems), notes)


def _printable(text: str) -> str:
    """In one line, and without what no terminal takes: names of files need not be Unicode."""
    return " ".join(text.encode(errors="backslashreplace").decode().split())


def _files(record: Task) -> Iterator[tuple[str, Path]]:
    """The files of a record with what they are to it."""
    yield from (("reference", path) for path in record.references)
    if record.target is not None:
        yield "target", record.target
    yield from (("mask", path) for path in record.masks if path is not None)


def _shared(rows: Rows, seen: dict[Path, _Seen]) -> Rows:
    """The rows, with the first of embedded pictures of equal bytes in the place of each."""
    first: dict[str, Path] = {}
    same: dict[Path, Path] = {}
    for path, found in seen.items():
        if found.digest is not None and is_private(path):
            same[path] = first.setdefault(found.digest, path)

    def share(row: Task) -> Task:
        return replace(
            row,
            references=tuple(same.get(path, path) for path in row.references),
            target=row.target and same.get(row.target, row.target),
            masks=tuple(path and same.get(path, path) for path in row.masks),
        )

    return [share(row) if isinstance(row, Task) else row for row in rows]


def _uses(rows: Rows) -> dict[Path, _Use]:
    found: dict[Path, _Use] = {}
    for number, row in enumerate(rows):
        if isinstance(row, Task):
            for role, path in _files(row):
                found.setdefault(path, _Use(number, row.id, role))
    return found


def _look_at(paths: list[Path], quick: bool, workers: int, progress: Progress | None) -> dict[Path, _Seen]:
    seen = {}
    # Entered here, once: the threads' own changes to the filters could outlive them.
    with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
        for path, result in zip(paths, pool.map(lambda path: _look(path, quick), paths), strict=True):
            seen[path] = result
            if progress is not None:
                progress(len(seen), len(paths))
    return seen


def _look(path: Path, quick: bool) -> _Seen:
    try:
        if not is_file(path):
            return _Seen("missing", f"{path}: no such picture")
        # In quick mode only what had to be read anyway.
        content = None if quick and not is_member(path) else read_bytes(path)
        with opened(path if content is None else content, path):
            pass  # its header, that is
        digest = None if content is None else hashlib.sha256(content).hexdigest()
        return _Seen(digest=digest, look=None if quick or content is None else look_of(read_picture(content, path)))
    except UserError as error:
        return _Seen("broken", str(error))


def _row_problems(rows: Rows) -> Iterator[Problem]:
    ids: dict[str, int] = {}
    tasks: dict[tuple[object, ...], str] = {}
    for number, row in enumerate(rows):
        if isinstance(row, Fault):
            yield Problem(row.id, number, "row", row.message)
        if not isinstance(row, Task):
            continue
        chatter = leftover(row.prompt)
        if chatter is not None:
            yield Problem(row.id, number, "leftover", f"prompt {row.prompt[:80]!r} looks like chatter ({chatter!r})")
        first = ids.setdefault(row.id, number)
        if first != number:
            yield Problem(row.id, number, "duplicate", f"row {first} has the same id")
        task = (" ".join(row.prompt.lower().split()), row.references, row.target)
        if task in tasks:
            yield Problem(row.id, number, "duplicate", f"the same prompt and pictures as {tasks[task]}")
        tasks.setdefault(task, row.id)
        if row.target in row.references:
            yield Problem(row.id, number, "duplicate", f"its target {row.target} is its own reference")


def _file_problems(rows: Rows, seen: dict[Path, _Seen]) -> Iterator[Problem]:
    """A file at fault counts against every row that needs it."""
    for number, row in enumerate(rows):
        if isinstance(row, Task):
            for role, path in dict.fromkeys(_files(row)):
                found = seen[path]
                if found.kind is not None:
                    yield Problem(row.id, number, found.kind, f"{role} {found.message}")


def _copies(uses: dict[Path, _Use], seen: dict[Path, _Seen]) -> Iterator[Problem]:
    """Files with another's content; unread ones are read if another is as long. Masks may well be equal."""
    suspects: defaultdict[str | int, list[Path]] = defaultdict(list)
    for path, use in uses.items():
        if seen[path].kind is None and use.role != "mask":
            suspects[seen[path].digest or length(path)].append(path)
    for paths in suspects.values():
        first: dict[str, Path] = {}
        for path in paths if len(paths) > 1 else []:
            digest = seen[path].digest or hashlib.sha256(read_bytes(path)).hexdigest()
            original = first.setdefault(digest, path)
            if original != path and _counts(uses[path], uses[original]):
                yield _likeness("duplicate", path, original, uses, "is a copy of")


def _near_copies(uses: dict[Path, _Use], seen: dict[Path, _Seen]) -> Iterator[Problem]:
    """Files that look like an earlier one; of several earlier ones the first is named."""
    paths = [path for path, use in uses.items() if seen[path].look is not None and use.role != "mask"]
    told: set[int] = set()
    for later, earlier in alike([look for path in paths if (look := seen[path].look) is not None]):
        path, original = paths[later], paths[earlier]
        if later in told or not _counts(uses[path], uses[original]):
            continue
        told.add(later)
        if seen[path].digest != seen[original].digest:
            yield _likeness("near-duplicate", path, original, uses, "looks like")


def _mask_problems(rows: Rows, seen: dict[Path, _Seen]) -> Iterator[Problem]:
    """Masks as training reads them; files at fault are told already."""

    @functools.lru_cache(maxsize=1)  # rows of one object stand together
    def size_of(path: Path) -> tuple[int, int]:
        return read_picture(read_bytes(path), path).size

    for number, row in enumerate(rows):
        if not isinstance(row, Task):
            continue
        for path, reference in zip(row.masks, row.references, strict=False):
            if path is None or seen[path].kind is not None or seen[reference].kind is not None:
                continue
            try:
                size = size_of(reference)
                fault = mask_fault(fit_mask(read_mask(path), size, row.mask_threshold), size)
            except UserError as error:
                yield Problem(row.id, number, "mask", str(error))
                continue
            if fault is not None:
                yield Problem(row.id, number, "mask", f"mask {path} {fault}")


def _counts(one: _Use, other: _Use) -> bool:
    """References of one task may be alike; a target like its own reference teaches to copy, and rows should differ."""
    return one.row != other.row or one.role != other.role


def _likeness(kind: Kind, path: Path, original: Path, uses: dict[Path, _Use], verb: str) -> Problem:
    use, other = uses[path], uses[original]
    whose = "its own" if use.row == other.row else f"row {other.id}'s"
    return Problem(use.id, use.row, kind, f"{use.role} {path} {verb} {whose} {other.role} {original}")
