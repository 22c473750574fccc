"""Prompts that a text encoder does not read to the end."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence

from cgrpo.types import Task


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
