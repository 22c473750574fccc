"""What becomes of prompts that are longer than a text encoder reads."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence

from cgrpo.data import ManifestSource, Source
from cgrpo.policies.base import Policy
from cgrpo.types import Task


def cut_lines(cut: Mapping[str, Sequence[int]], names: Sequence[str]) -> Iterator[str]:
    """How many of the prompts of these names are ``cut``, by what, and whose is the first."""
    for what, rows in cut.items():
        if rows:
            yield f"{len(rows)} of {len(names)} prompts are cut by {what}, the first of them {names[rows[0]]}'s"


def say_cut(policy: Policy, prompts: Sequence[str], names: Sequence[str]) -> None:
    """``cut_lines`` on stderr."""
    for line in cut_lines(policy.cut_prompts(prompts), names):
        print(f"cgrpo: {line}", file=sys.stderr)


def say_cut_tasks(policy: Policy, source: Source) -> None:
    """``say_cut`` for the records of a data set; the toy world's prompts are short."""
    if isinstance(source, ManifestSource):
        say_cut(policy, *prompts_of(source.tasks))


def prompts_of(records: Sequence[Task]) -> tuple[list[str], list[str]]:
    """The prompts of records, and what each is called."""
    return [record.prompt for record in records], [f"record {record.id}" for record in records]
