"""Is a data set fit to train on? Everything that is wrong with it, not just the first thing."""

import functools
import os
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cgrpo.data.archives import container, is_file, is_private, length, read_bytes
from cgrpo.data.masks import fit_mask, mask_fault, read_mask
from cgrpo.data.notes import notes_on
from cgrpo.data.readers import scan
from cgrpo.data.report import PROBLEM_KINDS, CheckReport, Problem, ProblemKind
from cgrpo.data.suspicion import Thumbnail, alike, chatter, thumbnail
from cgrpo.data.tasks import Fault, LeftOut, Rows
from cgrpo.errors import UserError
from cgrpo.fingerprint import of_bytes
from cgrpo.pictures import opened, read_picture, unread_colours
from cgrpo.types import Task

ONE_COLOUR = "are of one colour, or wholly transparent"
NOT_SRGB = "say in another way than an ICC profile that they are not sRGB (cICP, gAMA, nclx), which is not read"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _Use:
    """Where a file first turns up."""

    row: int
    id: str
    role: str


@dataclass(frozen=True)
class _Finding:
    """What a look at a file found: a problem, or its content's fingerprint, its thumbnail, and remarks on it."""

    kind: ProblemKind | None = None
    message: str = ""
    fingerprint: str | None = None
    thumbnail: Thumbnail | None = None
    remarks: tuple[str, ...] = ()


def check_manifest(
    path: Path,
    *,
    root: Path | None = None,
    quick: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> CheckReport:
    """Check whatever ``read_tasks`` reads; pictures are opened as training will.

    Each file is looked at once, by ``workers`` threads (default: one per core): its header, then the whole picture.
    ``quick``: headers only, and equal contents among files of one size. ``progress`` gets (done, all) files.
    Where rows can't share a picture (parquet, a WebDataset's tar), embedded pictures of equal bytes count as one file
    that they share. Raises UserError only if no row can be read at all.
    """
    rows = scan(path, root)
    paths = list(_uses(rows))
    findings = _look_at(paths, quick, workers or os.cpu_count() or 1, progress)
    rows = _shared(rows, findings)
    uses = _uses(rows)
    problems = [
        *_row_problems(rows),
        *_file_problems(rows, findings),
        *_copies(uses, findings),
        *_near_copies(uses, findings),
        *([] if quick else _mask_problems(rows, findings)),
    ]
    problems = [replace(one, id=_printable(one.id), message=_printable(one.message)) for one in problems]
    problems.sort(key=lambda problem: (problem.row, PROBLEM_KINDS.index(problem.kind)))
    left_out = sum(isinstance(row, LeftOut) for row in rows)
    notes = [_printable(note) for note in (*notes_on(path, rows), *_remarks(uses, findings))]
    return CheckReport(_printable(str(path)), len(rows), left_out, len(paths), quick, tuple(problems), tuple(notes))


def _remarks(uses: dict[Path, _Use], findings: dict[Path, _Finding]) -> Iterator[str]:
    for remark in (ONE_COLOUR, NOT_SRGB):
        paths = [path for path, use in uses.items() if use.role != "mask" and remark in findings[path].remarks]
        if paths:
            yield f"{len(paths)} pictures {remark}, the first {paths[0]}"


def _printable(text: str) -> str:
    """In one line, and without what no terminal takes: names of files need not be Unicode."""
    return " ".join(text.encode(errors="backslashreplace").decode().split())


def _tasks(rows: Rows) -> Iterator[tuple[int, Task]]:
    return ((number, row) for number, row in enumerate(rows) if isinstance(row, Task))


def _files(task: Task) -> Iterator[tuple[str, Path]]:
    yield from (("reference", path) for path in task.references)
    if task.target is not None:
        yield "target", task.target
    yield from (("mask", path) for path in task.masks if path is not None)


def _uses(rows: Rows) -> dict[Path, _Use]:
    uses: dict[Path, _Use] = {}
    for number, task in _tasks(rows):
        for role, path in _files(task):
            uses.setdefault(path, _Use(number, task.id, role))
    return uses


def _shared(rows: Rows, findings: dict[Path, _Finding]) -> Rows:
    """The rows, with the first of embedded pictures of equal bytes in the place of each."""
    first: dict[str, Path] = {}
    same: dict[Path, Path] = {}
    for path, finding in findings.items():
        if finding.fingerprint is not None and is_private(path):
            same[path] = first.setdefault(finding.fingerprint, path)

    def share(task: Task) -> Task:
        return replace(
            task,
            references=tuple(same.get(path, path) for path in task.references),
            target=task.target and same.get(task.target, task.target),
            masks=tuple(path and same.get(path, path) for path in task.masks),
        )

    return [share(row) if isinstance(row, Task) else row for row in rows]


def _look_at(paths: list[Path], quick: bool, workers: int, progress: Progress | None) -> dict[Path, _Finding]:
    findings = {}
    # Entered here, once: the threads' own changes to the filters could outlive them.
    with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
        for path, finding in zip(paths, pool.map(lambda path: _look(path, quick), paths), strict=True):
            findings[path] = finding
            if progress is not None:
                progress(len(findings), len(paths))
    return findings


def _look(path: Path, quick: bool) -> _Finding:
    try:
        if not is_file(path):
            return _Finding("missing", f"{path}: no such picture")
        # In quick mode only what had to be read anyway.
        content = None if quick and container(path) == path else read_bytes(path)
        with opened(path if content is None else content, path):
            pass  # its header, that is
        if content is None:
            return _Finding()
        remarks = (NOT_SRGB,) if unread_colours(content) else ()
        if quick:
            return _Finding(fingerprint=of_bytes(content), remarks=remarks)
        picture = read_picture(content, path)
        if all(low == high for low, high in zip(*[iter(np.ravel(picture.getextrema()))] * 2, strict=True)):
            remarks += (ONE_COLOUR,)
        return _Finding(fingerprint=of_bytes(content), thumbnail=thumbnail(picture), remarks=remarks)
    except UserError as error:
        return _Finding("broken", str(error))


def _row_problems(rows: Rows) -> Iterator[Problem]:
    for number, row in enumerate(rows):
        if isinstance(row, Fault):
            yield Problem(row.id, number, "row", row.message)
    ids: dict[str, int] = {}
    tasks: dict[tuple[object, ...], str] = {}
    for number, task in _tasks(rows):
        talk = chatter(task.prompt)
        if talk is not None:
            yield Problem(task.id, number, "chatter", f"prompt {task.prompt[:80]!r} looks like chatter ({talk!r})")
        first = ids.setdefault(task.id, number)
        if first != number:
            yield Problem(task.id, number, "duplicate", f"row {first + 1} has the same id")
        content = (" ".join(task.prompt.lower().split()), task.references, task.target)
        if content in tasks:
            yield Problem(task.id, number, "duplicate", f"the same prompt and pictures as {tasks[content]}")
        tasks.setdefault(content, task.id)
        if task.target in task.references:
            yield Problem(task.id, number, "duplicate", f"its target {task.target} is its own reference")


def _file_problems(rows: Rows, findings: dict[Path, _Finding]) -> Iterator[Problem]:
    """A file at fault counts against every row that needs it."""
    for number, task in _tasks(rows):
        for role, path in dict.fromkeys(_files(task)):
            finding = findings[path]
            if finding.kind is not None:
                yield Problem(task.id, number, finding.kind, f"{role} {finding.message}")


def _copies(uses: dict[Path, _Use], findings: dict[Path, _Finding]) -> Iterator[Problem]:
    """Files with another's content; unread ones are read if another is as long. Masks may well be equal."""
    suspects: defaultdict[str | int, list[Path]] = defaultdict(list)
    for path, use in uses.items():
        if findings[path].kind is None and use.role != "mask":
            suspects[findings[path].fingerprint or length(path)].append(path)
    for paths in suspects.values():
        first: dict[str, Path] = {}
        for path in paths if len(paths) > 1 else []:
            original = first.setdefault(findings[path].fingerprint or of_bytes(read_bytes(path)), path)
            if original != path and _counts(uses[path], uses[original]):
                yield _likeness("duplicate", path, original, uses, "is a copy of")


def _near_copies(uses: dict[Path, _Use], findings: dict[Path, _Finding]) -> Iterator[Problem]:
    """Files that look like an earlier one; of several earlier ones the first is named."""
    thumbnails = {path: findings[path].thumbnail for path, use in uses.items() if use.role != "mask"}
    paths = [path for path, thumb in thumbnails.items() if thumb is not None]
    reported: set[int] = set()
    for later, earlier in alike([thumb for thumb in thumbnails.values() if thumb is not None]):
        path, original = paths[later], paths[earlier]
        if later in reported or not _counts(uses[path], uses[original]):
            continue
        reported.add(later)
        if findings[path].fingerprint != findings[original].fingerprint:
            yield _likeness("near-duplicate", path, original, uses, "looks like")


def _mask_problems(rows: Rows, findings: dict[Path, _Finding]) -> Iterator[Problem]:
    """Masks as training reads them; files at fault are reported already."""

    @functools.lru_cache(maxsize=1)  # rows of one object stand together
    def size_of(path: Path) -> tuple[int, int]:
        return read_picture(read_bytes(path), path).size

    for number, task in _tasks(rows):
        for path, reference in zip(task.masks, task.references, strict=False):
            if path is None or findings[path].kind is not None or findings[reference].kind is not None:
                continue
            try:
                size = size_of(reference)
                fault = mask_fault(fit_mask(read_mask(path), size, task.mask_threshold), size)
            except UserError as error:
                yield Problem(task.id, number, "mask", str(error))
                continue
            if fault is not None:
                yield Problem(task.id, number, "mask", f"mask {path} {fault}")


def _counts(one: _Use, other: _Use) -> bool:
    """References of one task may be alike; a target like its own reference teaches to copy, and rows should differ."""
    return one.row != other.row or one.role != other.role


def _likeness(kind: ProblemKind, path: Path, original: Path, uses: dict[Path, _Use], verb: str) -> Problem:
    use, other = uses[path], uses[original]
    whose = "its own" if use.row == other.row else f"task {other.id}'s"
    return Problem(use.id, use.row, kind, f"{use.role} {path} {verb} {whose} {other.role} {original}")
