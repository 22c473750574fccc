"""Scores gathered in cells, one per method, column, subject and prompt; and means over them.

A cell's seeds are averaged first. Every pair of subject and prompt weighs alike, whatever its number of pictures.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import fmean, variance
from typing import Any, NamedTuple

from cgrpo.scores import PROPERTY, Column, ScoreRow

ALL, WITHOUT = "all", f"without {PROPERTY}"  # the groups that hold other groups


class Pair(NamedTuple):
    """A subject and one of its prompts (real photos have none); the kinds as in ``ScoreRow``."""

    subject: str
    prompt_index: int | None
    subject_kind: str = ""
    prompt_kind: str = ""


@dataclass
class Cell:
    """The scores of a pair's pictures, one per seed, and how many could not be scored."""

    scores: list[float] = field(default_factory=list)
    unscored: int = 0


Cells = dict[Column, dict[str, dict[Pair, Cell]]]  # by column and method


@dataclass(frozen=True)
class Mean:
    """A method's mean in a column, over pairs of the group.

    pictures and unscored count pictures; seed_deviation is that of a pair's pictures over seeds, pooled.
    """

    method: str
    column: str
    axis: str
    group: str
    mean: float
    pairs: int
    pictures: int
    unscored: int
    seed_deviation: float


def gather(rows: Iterable[ScoreRow]) -> Cells:
    """Every row in its cell, in order of appearance."""
    cells: Cells = {}
    for row in rows:
        pairs = cells.setdefault(row.column, {}).setdefault(row.method, {})
        cell = pairs.setdefault(Pair(row.subject, row.prompt_index, row.subject_kind, row.prompt_kind), Cell())
        if row.score is None or row.score != row.score:
            cell.unscored += 1
        else:
            cell.scores.append(row.score)
    return cells


def groups_of(cells: Cells) -> list[str]:
    """All; without property prompts, where there are any; then groups of prompts and kinds of subjects, if several."""
    pairs = {pair: None for column in cells.values() for method in column.values() for pair in method}
    prompts = list(dict.fromkeys(pair.prompt_kind for pair in pairs if pair.prompt_kind))
    prompts.sort(key=lambda name: name != PROPERTY)
    subjects = list(dict.fromkeys(pair.subject_kind for pair in pairs if pair.subject_kind))
    groups = [ALL, *([WITHOUT] if PROPERTY in prompts else [])]
    for kinds in (prompts, subjects):
        groups += kinds if len(kinds) > 1 else []
    return list(dict.fromkeys(groups))


def in_group(pair: Pair, group: str) -> bool:
    """Whether the pair belongs to a group. Real photos follow no prompt, so they are in no group of prompts."""
    if group == WITHOUT:
        return pair.prompt_index is not None and pair.prompt_kind != PROPERTY
    return group == ALL or group in (pair.subject_kind, pair.prompt_kind)


def pair_means(pairs: dict[Pair, Cell], group: str = ALL) -> dict[Pair, float]:
    """The mean over seeds of each pair in the group that has any score."""
    return {pair: fmean(cell.scores) for pair, cell in pairs.items() if cell.scores and in_group(pair, group)}


def mean_of(column: Column, method: str, pairs: dict[Pair, Cell], group: str = ALL) -> Mean | None:
    """None where the group has no picture; a mean of NaN where none of its pictures has a score."""
    cells = [cell for pair, cell in pairs.items() if in_group(pair, group)]
    if not cells:
        return None
    values = list(pair_means(pairs, group).values())
    return Mean(
        method,
        column.label,
        column.axis,
        group,
        fmean(values) if values else math.nan,
        len(values),
        sum(len(cell.scores) + cell.unscored for cell in cells),
        sum(cell.unscored for cell in cells),
        _seed_deviation(cells),
    )


def _seed_deviation(cells: Iterable[Cell]) -> float:
    """Standard deviation of a pair's pictures over seeds, pooled over pairs; NaN where none has two scores."""
    groups = [cell.scores for cell in cells if len(cell.scores) > 1]
    freedom = sum(len(scores) - 1 for scores in groups)
    if not freedom:
        return math.nan
    return (sum(variance(scores) * (len(scores) - 1) for scores in groups) / freedom) ** 0.5


def short_summary(rows: Iterable[ScoreRow]) -> list[dict[str, Any]]:
    """``{method, metric, protocol, mean, pictures, failed}`` of each column, in order of appearance."""
    rows = list(rows)
    cells, summary = gather(rows), []
    for method, column in dict.fromkeys((row.method, row.column) for row in rows):
        mean = mean_of(column, method, cells[column][method])
        assert mean is not None  # a row is a picture
        summary.append(
            {
                "method": method,
                "metric": column.metric,
                "protocol": column.protocol,
                "mean": None if math.isnan(mean.mean) else mean.mean,
                "pictures": mean.pictures,
                "failed": mean.unscored,
            }
            | ({} if column.reference is None else {"reference": column.reference})
        )
    return summary
