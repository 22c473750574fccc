"""Pictures to ask about, from what ``cgrpo evaluate`` wrote: by subject and prompt, one a method and seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cgrpo.errors import UserError
from cgrpo.scores import RESERVED, read_description, read_scores


@dataclass
class Task:
    """A subject and a prompt, and the pictures that methods made of it: {method: {seed: file}}."""

    subject: str
    prompt_index: int
    prompt: str
    pictures: dict[str, dict[int, Path]] = field(default_factory=dict)


@dataclass(frozen=True)
class Sources:
    """tasks: those that every method has a picture of; references: files by subject; benchmark, methods: names."""

    folder: Path
    benchmark: str
    methods: tuple[str, ...]
    tasks: Sequence[Task]
    references: Mapping[str, tuple[Path, ...]]


def read_sources(folder: Path, methods: Sequence[str] = ()) -> Sources:
    """What can be asked about ``folder``, the --out of ``cgrpo evaluate``.

    ``methods`` in the order in which they are compared, what is compared with first; by default all, "base" first.
    Raises UserError for an unknown method, for pictures that are gone, and where the methods share no task.
    """
    rows, about = read_scores(folder), read_description(folder)
    if not rows or not about:
        raise UserError(f"{folder}: no scores and benchmark.json; run cgrpo evaluate with this folder as --out first")
    known = about.get("methods", {})
    chosen = tuple(methods) or tuple(sorted((n for n in known if n not in RESERVED), key=lambda name: name != "base"))
    for name in chosen:
        if name not in known:
            raise UserError(f"{folder}: no method {name!r}; there is {', '.join(known)}")
    if len(set(chosen)) < len(chosen):
        raise UserError("the same --method is given twice; name each once")
    tasks: dict[tuple[str, int], Task] = {}
    for row in rows:
        if row.method in chosen and row.picture and row.prompt_index is not None and row.seed is not None:
            key = (row.subject, row.prompt_index)
            task = tasks.setdefault(key, Task(*key, row.prompt or ""))
            task.pictures.setdefault(row.method, {})[row.seed] = folder / known[row.method] / row.picture
    shared = [task for task in tasks.values() if set(task.pictures) == set(chosen)]
    if not shared:
        raise UserError(f"{folder}: no subject and prompt of which each of {', '.join(chosen)} has a picture")
    references = {
        subject: tuple(folder / about["data"] / name for name in names)
        for subject, names in about["references"].items()
    }
    _refuse_missing(shared, references)
    return Sources(folder, about.get("benchmark", ""), chosen, shared, references)


def _refuse_missing(tasks: Sequence[Task], references: Mapping[str, Sequence[Path]]) -> None:
    for task in tasks:
        if task.subject not in references:
            raise UserError(f"benchmark.json names no reference of {task.subject!r}; run cgrpo evaluate again")
        made = [file for seeds in task.pictures.values() for file in seeds.values()]
        for file in (*references[task.subject], *made):
            if not file.is_file():
                raise UserError(f"{file}: the picture is gone; run cgrpo evaluate again, which makes what is missing")
