"""Scores as cells: one a method, column, subject and prompt; its pictures' seeds are averaged first of all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import fmean, variance
from typing import NamedTuple

from cgrpo.evaluation.scores.rows import PROPERTY, ScoreRow

ALL, WITHOUT = "all", f"without {PROPERTY}"  # the groups that hold other groups


class Column(NamedTuple):
    """A metric under a protocol: "one" or "all" photographs of the subject, the "prompt", or the "picture" alone.

    ``reference``: against which of the task's references, from 0; None: what the protocol says.
    """

    metric: str
    protocol: str
    reference: int | None = None

    @property
    def label(self) -> str:
        """As in every table: "dino (one)", "dino (one, reference 2)", "clip"."""
        known = self.protocol if self.reference is None else f"{self.protocol}, reference {self.reference + 1}"
        return f"{self.metric} ({known})" if self.axis == "identity" else self.metric

    @property
    def axis(self) -> str:
        return self.protocol if self.protocol in ("prompt", "picture") else "identity"


class Pair(NamedTuple):
    """A subject and one of its prompts (real photographs have none); the kinds as in ``ScoreRow``."""

    subject: str
    prompt_index: int | None
    subject_kind: str = ""
    prompt_kind: str = ""


@dataclass
class Cell:
    """The scores of a pair's pictures, one a seed, and how many could not be scored."""

    scores: list[float] = field(default_factory=list)
    unscored: int = 0


Cells = dict[Column, dict[str, dict[Pair, Cell]]]  # by column and method


def column_of(row: ScoreRow) -> Column:
    return Column(row.metric, row.protocol, row.reference)


def gather(rows: Iterable[ScoreRow]) -> Cells:
    """Every row in its cell, in order of appearance."""
    cells: Cells = {}
    for row in rows:
        pairs = cells.setdefault(column_of(row), {}).setdefault(row.method, {})
        cell = pairs.setdefault(Pair(row.subject, row.prompt_index, row.subject_kind, row.prompt_kind), Cell())
        if row.score is None or row.score != row.score:
            cell.unscored += 1
        else:
            cell.scores.append(row.score)
    return cells


def pair_means(pairs: dict[Pair, Cell], group: str = ALL) -> dict[Pair, float]:
    """The mean over seeds of each pair in the group that has any score."""
    return {pair: fmean(cell.scores) for pair, cell in pairs.items() if cell.scores and in_group(pair, group)}


def seed_deviation(pairs: dict[Pair, Cell], group: str = ALL) -> float:
    """Standard deviation of a pair's pictures over seeds, pooled over pairs; NaN where none has two scores."""
    groups = [cell.scores for pair, cell in pairs.items() if len(cell.scores) > 1 and in_group(pair, group)]
    freedom = sum(len(scores) - 1 for scores in groups)
    if not freedom:
        return float("nan")
    return (sum(variance(scores) * (len(scores) - 1) for scores in groups) / freedom) ** 0.5


def groups_of(cells: Cells) -> list[str]:
    """All; without property prompts, where there are any; then groups of prompts and kinds of subjects, if several."""
    pairs = {pair: None for column in cells.values() for method in column.values() for pair in method}
    prompts = list(dict.fromkeys(pair.prompt_kind for pair in pairs if pair.prompt_kind))
    prompts.sort(key=lambda name: name != PROPERTY)
    kinds = list(dict.fromkeys(pair.subject_kind for pair in pairs if pair.subject_kind))
    found = [ALL, *([WITHOUT] if PROPERTY in prompts else [])]
    for some in (prompts, kinds):
        found += some if len(some) > 1 else []
    return list(dict.fromkeys(found))


def in_group(pair: Pair, group: str) -> bool:
    """Whether the pair belongs to a group. Real photographs follow no prompt, so they are in no group of prompts."""
    if group == WITHOUT:
        return pair.prompt_index is not None and pair.prompt_kind != PROPERTY
    return group == ALL or group in (pair.subject_kind, pair.prompt_kind)
