"""What becomes of prompts that are longer than a text encoder reads."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cgrpo.data import ManifestSource, Source
from cgrpo.policies.base import Policy


def say_cut(policy: Policy, prompts: Sequence[str], names: Sequence[str]) -> None:
    """On stderr: how many prompts are cut, by what, and whose is the first."""
    for what, rows in policy.cut_prompts(prompts).items():
        if rows:
            told = f"{len(rows)} of {len(prompts)} prompts are cut by {what}, the first of them {names[rows[0]]}'s"
            print(f"cgrpo: {told}", file=sys.stderr)


def say_cut_tasks(policy: Policy, source: Source) -> None:
    """``say_cut`` for the records of a data set; the toy world's prompts are short."""
    if isinstance(source, ManifestSource):
        records = source.records
        say_cut(policy, [record.prompt for record in records], [f"record {record.id}" for record in records])
