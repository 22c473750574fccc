"""Scores as cells: one a method, column, subject and prompt; its pictures' seeds are averaged first of all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import fmean, variance
from typing import NamedTuple

from cgrpo.evaluation.dreambench import ScoreRow
from cgrpo.evaluation.dreambench.lists import known

PROPERTY = range(20, 25)  # "a red ...", "a purple ...", "a shiny ...", "a wet ...", "a cube shaped ..."
GROUPS = ("all", "without property", "property", "live", "object", "mixed")


class Column(NamedTuple):
    """A metric under a protocol: "one" or "all" photographs of the subject, or "prompt"."""

    metric: str
    protocol: str

    @property
    def label(self) -> str:
        return self.metric if self.protocol == "prompt" else f"{self.metric} ({self.protocol})"

    @property
    def axis(self) -> str:
        return "prompt" if self.protocol == "prompt" else "identity"


class Pair(NamedTuple):
    """A subject and one of its prompts; real photographs have no prompt."""

    subject: str
    prompt_index: int | None


@dataclass
class Cell:
    """The scores of a pair's pictures, one a seed, and how many could not be scored."""

    scores: list[float] = field(default_factory=list)
    unscored: int = 0


Cells = dict[Column, dict[str, dict[Pair, Cell]]]  # by column and method


def gather(rows: Iterable[ScoreRow]) -> Cells:
    """Every row in its cell, in order of appearance."""
    cells: Cells = {}
    for row in rows:
        pairs = cells.setdefault(Column(row.metric, row.protocol), {}).setdefault(row.method, {})
        cell = pairs.setdefault(Pair(row.subject, row.prompt_index), Cell())
        if row.score is None or row.score != row.score:
            cell.unscored += 1
        else:
            cell.scores.append(row.score)
    return cells


def pair_means(pairs: dict[Pair, Cell], group: str = "all") -> dict[Pair, float]:
    """The mean over seeds of each pair in the group that has any score."""
    return {pair: fmean(cell.scores) for pair, cell in pairs.items() if cell.scores and in_group(pair, group)}


def seed_deviation(pairs: dict[Pair, Cell], group: str = "all") -> float:
    """Standard deviation of a pair's pictures over seeds, pooled over pairs; NaN where none has two scores."""
    groups = [cell.scores for pair, cell in pairs.items() if len(cell.scores) > 1 and in_group(pair, group)]
    freedom = sum(len(scores) - 1 for scores in groups)
    if not freedom:
        return float("nan")
    return (sum(variance(scores) * (len(scores) - 1) for scores in groups) / freedom) ** 0.5


def kind(subject: str) -> str:
    """ "live" or "object"; "mixed" for a pair of both; "" for a subject that is not DreamBench's."""
    table = known()["subjects"]
    live = {table[name]["live"] for name in subject.split("+") if name in table}
    return {frozenset({True}): "live", frozenset({False}): "object", frozenset({True, False}): "mixed"}.get(
        frozenset(live), ""
    )


def in_group(pair: Pair, group: str) -> bool:
    """Whether the pair belongs to one of GROUPS. Real photographs follow no prompt, so they are in no prompt group."""
    if group == "all":
        return True
    if group == "property":
        return pair.prompt_index in PROPERTY
    if group == "without property":
        return pair.prompt_index is not None and pair.prompt_index not in PROPERTY
    return kind(pair.subject) == group
