"""A benchmark as the rest of this room sees it: subjects with photos, and rows that ask for pictures of them.

``manifest_suite`` makes any dataset one; DreamBench and the toy world have files of their own.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from cgrpo import fingerprint
from cgrpo.data import read_tasks
from cgrpo.data.benchmarks import ROWS, benchmark_of
from cgrpo.errors import UserError
from cgrpo.evaluation.metrics import Scorer, describe_metrics
from cgrpo.types import Task

SHORT = 24  # characters of a phrase in names: a picture's name has those of all its subjects
Masks = Mapping[tuple[str, str], tuple[Path, int]]


@dataclass(frozen=True)
class SuiteRow:
    """One prompt for one subject, or for several together.

    number        its place in the whole list, also where only some subjects are taken
    subjects      names, safe as folders; ``words`` says what each is ("cat"), for the segmenter and the prompt
    references    the pictures shown to the policy, relative to the suite's folder
    prompt_index  counts the subjects' prompts from 0
    subject_kind  of the subjects ("live", "object"), ``prompt_kind`` of the prompt ("background", "property"); "": none
    target        a real picture of the subject that follows the prompt, where there is one
    case          the toy world's ground truth, for its judges
    """

    number: int
    subjects: tuple[str, ...]
    words: tuple[str, ...]
    references: tuple[str, ...]
    prompt_index: int
    prompt: str
    subject_kind: str = ""
    prompt_kind: str = ""
    target: str | None = None
    case: Any = field(default=None, compare=False, repr=False)

    @property
    def subject(self) -> str:
        """One name: "cat", or "cat+dog" for a pair."""
        return "+".join(self.subjects)


@dataclass(frozen=True)
class Suite:
    """Rows, and the photos that identity is scored against.

    root        the folder that all pictures' names are relative to
    photos      by subject, its reference first: protocol "one" compares with that alone, "all" with every one
    conditions  what must be equal for pictures and scores to be comparable; scores under others do not mix
    masks       the dataset's own, by subject and photo: the file, and above which level is subject
    facts       worth keeping with the scores: for DreamBench, which photos these are
    """

    name: str
    root: Path
    rows: list[SuiteRow]
    photos: Mapping[str, tuple[str, ...]]
    conditions: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)
    masks: Masks = field(default_factory=dict)

    @property
    def references(self) -> dict[str, list[str]]:
        """The pictures shown to the policy, by subject or pair."""
        return {row.subject: list(row.references) for row in self.rows}

    def with_targets(self) -> Suite:
        """The suite's rows that have a target."""
        return replace(self, rows=[row for row in self.rows if row.target is not None])


def subjects_of(rows: Iterable[SuiteRow]) -> list[str]:
    """The rows' single subjects, each once."""
    return list(dict.fromkeys(name for row in rows for name in row.subjects))


def describe(suite: Suite, out: Path, methods: Mapping[str, Path], metrics: Mapping[str, Scorer]) -> dict[str, Any]:
    """The content of benchmark.json for the scores in ``out``.

    ``{benchmark, conditions, facts, data, references: {subject: pictures}, methods: {name: folder}, metrics:
    {name: {role, axis, unit, checkpoint}}}``. Folders below ``out`` are relative to it, so that it can be moved.
    """

    def place(folder: Path) -> str:
        whole, home = folder.resolve(), out.resolve()
        return str(whole.relative_to(home) if whole.is_relative_to(home) else whole)

    return {
        "benchmark": suite.name,
        "conditions": dict(suite.conditions),
        "facts": dict(suite.facts),
        "data": place(suite.root),
        "references": suite.references,
        "methods": {name: place(folder) for name, folder in methods.items()},
        "metrics": describe_metrics(metrics),
    }


# -- a dataset of one's own ------------------------------------------------------------------------


def manifest_suite(path: Path | str, root: Path | str | None = None, limit: int = 0) -> Suite:
    """Whatever ``data.read_tasks`` reads; ``limit`` takes the first tasks alone (0: all).

    Tasks whose meta has the same ``subject_id``, or else those with the same references, are one subject. It is called
    by its subject word or its first reference's name, and numbered where two would have one name. All references of a
    task are shown to the policy; protocol "one" scores against the first. In benchmarks with several references each
    reference is a subject of its own, unless the row says that it shows none, such as a style. Masks count as in
    training. A task's target is a real picture that follows its prompt. Its meta may have a ``subject_kind`` (or
    SynCD's category) such as "live", and a ``prompt_kind`` such as "property". Raises UserError.
    """
    path, root = Path(path), None if root is None else Path(root)
    tasks = read_tasks(path, root, limit)
    for task in tasks:
        if not task.references:
            raise UserError(f"manifest {path}, record {task.id}: has no reference to compare with")
    names = _names(tasks)
    rows: list[SuiteRow] = []
    counts: Counter[tuple[str, ...]] = Counter()
    photos: dict[str, tuple[str, ...]] = {}
    masks: dict[tuple[str, str], tuple[Path, int]] = {}
    for number, task in enumerate(tasks):
        shown = tuple(str(file.absolute()) for file in task.references)
        subjects = {names[one.identity]: one for one in _subjects(task)}
        for name, subject in subjects.items():
            own = [shown[place] for place in subject.places]
            photos[name] = tuple(dict.fromkeys((*photos.get(name, ()), *own)))
            for place in subject.places if task.masks else ():
                if (mask := task.masks[place]) is not None:
                    masks[name, shown[place]] = (mask, task.mask_threshold)
        rows.append(
            SuiteRow(
                number,
                tuple(subjects),
                tuple(subject.word for subject in subjects.values()),
                shown,
                counts[tuple(subjects)],
                task.prompt,
                subject_kind=str(task.meta.get("subject_kind") or task.meta.get("category") or ""),
                prompt_kind=str(task.meta.get("prompt_kind") or ""),
                target=str(task.target.absolute()) if task.target else None,
            )
        )
        counts[tuple(subjects)] += 1
    benchmark = benchmark_of(tasks)
    texts = "\n".join(f"{row.subject} {row.prompt}" for row in rows)
    conditions: dict[str, Any] = {"benchmark": benchmark or f"manifest {path.name}"}
    conditions |= {"rows": fingerprint.of_text(texts)[:16]} | ({"masks": len(masks)} if masks else {})
    facts = {"published rows": count} if (count := ROWS.get(benchmark)) else {}
    return Suite(benchmark or path.name, Path(), rows, photos, conditions, facts, masks)


class _Subject(NamedTuple):
    """A subject of a task: what tells it from others, what it is called by, its word, which references show it."""

    identity: Hashable
    called: str
    word: str
    places: Sequence[int]


def _subjects(task: Task) -> list[_Subject]:
    phrases = task.meta.get("phrases", []) if benchmark_of([task]) else []
    several = [
        _Subject(task.references[place], phrase[:SHORT] or f"{task.id}-{place + 1}", phrase, [place])
        for place, phrase in enumerate(phrases)
        if phrase is not None
    ]
    called = task.subject_id or task.subject or task.references[0].stem
    one = _Subject(task.subject_id or task.references, called, task.subject, range(len(task.references)))
    return several or [one]


def _names(tasks: Sequence[Task]) -> dict[Hashable, str]:
    """A name for each subject, safe as a folder's."""
    names: dict[Hashable, str] = {}
    taken: set[str] = set()
    for subject in (subject for task in tasks for subject in _subjects(task)):
        if subject.identity in names:
            continue
        name = re.sub(r"[^\w-]+", "_", subject.called).strip("_").lower()[:60] or "subject"
        numbered = (f"{name}-{number}" for number in itertools.count(2))  # which may be another's own name
        names[subject.identity] = next(free for free in itertools.chain([name], numbered) if free not in taken)
        taken.add(names[subject.identity])
    return names
