"""Held-out tasks of a run's guard and of its final comparison, and prompts that an encoder does not read to the end."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence

from cgrpo.build import make_manifest
from cgrpo.config import TOYBOX, Config
from cgrpo.data import ToyboxSource
from cgrpo.evaluation.benchmark.suite import manifest_suite
from cgrpo.evaluation.heldout import Tasks, heldout_tasks, tasks_of
from cgrpo.types import Batch, Task


def make_guard_tasks(cfg: Config) -> Batch | None:
    """The guard's held-out tasks; None where none are named. Raises UserError for a manifest that can't be read."""
    settings = cfg.guard
    if settings.source:
        source = make_manifest(cfg, settings.source)
        return source.batch(range(min(settings.tasks, len(source.tasks))))
    if cfg.data.source == TOYBOX:
        return ToyboxSource(0, "validation", cfg.data.dial).batch(range(settings.tasks))
    return None


def make_final_tasks(cfg: Config) -> Tasks | None:
    """The final comparison's held-out tasks; None where it is off or has none. Raises UserError as above."""
    settings = cfg.evaluation
    path = settings.source or ("" if cfg.data.source == TOYBOX else cfg.guard.source)
    if not settings.enabled or not (path or cfg.data.source == TOYBOX):
        return None
    if not path:
        return heldout_tasks(cfg)[1]
    source = make_manifest(cfg, path, limit=settings.tasks)
    suite = manifest_suite(source.path, limit=settings.tasks)
    return tasks_of(suite, source.batch(range(len(source.tasks))))


def prompts_of(tasks: Sequence[Task]) -> tuple[list[str], list[str]]:
    """The prompts of tasks, and what messages call each."""
    return [task.prompt for task in tasks], [f"record {task.id}" for task in tasks]


def cut_lines(cut: Mapping[str, Sequence[int]], names: Sequence[str]) -> Iterator[str]:
    """How many of the prompts of these names are ``cut``, by which encoder, and which is the first."""
    for encoder, rows in cut.items():
        if rows:
            yield f"{len(rows)} of {len(names)} prompts are cut by {encoder}, the first of them {names[rows[0]]}'s"


def print_cut(cut: Mapping[str, Sequence[int]], names: Sequence[str]) -> None:
    """``cut_lines`` on stderr."""
    for line in cut_lines(cut, names):
        print(f"cgrpo: {line}", file=sys.stderr)
