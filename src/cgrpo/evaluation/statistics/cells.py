"""Scores gathered in cells, one per method, column, subject and prompt; and means over them.

A cell's seeds are averaged first. Every pair of subject and prompt weighs alike, whatever its number of pictures.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean, variance
from typing import Any

from cgrpo.scores import PROPERTY, Column, ScoreRow

ALL, WITHOUT = "all", f"without {PROPERTY}"  # the groups that hold other groups


@dataclass(frozen=True)
class Pair:
    """A subject and one of its prompts, known by its text, whatever number a system gives it. Real photos have none.

    ``again`` counts the subject's prompts of the same text, from 0; the kinds as in ``ScoreRow``.
    """

    subject: str
    prompt: str | int | None
    again: int = 0
    subject_kind: str = field(default="", compare=False)
    prompt_kind: str = field(default="", compare=False)


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
    rows = list(rows)
    for row, pair in zip(rows, pairs_of(rows), strict=True):
        cell = cells.setdefault(row.column, {}).setdefault(row.method, {}).setdefault(pair, Cell())
        if row.score is None or row.score != row.score:
            cell.unscored += 1
        else:
            cell.scores.append(row.score)
    return cells


def pairs_of(rows: Sequence[ScoreRow]) -> list[Pair]:
    """Each row's pair, equal for rows of different methods that may be compared.

    A row without a text is known by its prompt's number. Where methods name kinds differently the first counts.
    """
    numbers: dict[tuple[str, str, str | int | None], set[int]] = {}
    for row in rows:
        numbers.setdefault((row.method, row.subject, _prompt(row)), set()).add(_number(row))
    order = {key: {number: n for n, number in enumerate(sorted(some))} for key, some in numbers.items()}
    kinds: dict[Pair, tuple[str, str]] = {}
    pairs = []
    for row in rows:
        pair = Pair(row.subject, _prompt(row), order[row.method, row.subject, _prompt(row)][_number(row)])
        subject_kind, prompt_kind = kinds.get(pair, ("", ""))
        kinds[pair] = subject_kind or row.subject_kind, prompt_kind or row.prompt_kind
        pairs.append(pair)
    return [Pair(pair.subject, pair.prompt, pair.again, *kinds[pair]) for pair in pairs]


def _prompt(row: ScoreRow) -> str | int | None:
    return " ".join(row.prompt.split()) if row.prompt else row.prompt_index


def _number(row: ScoreRow) -> int:
    return -1 if row.prompt_index is None else row.prompt_index


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
        return pair.prompt is not None and pair.prompt_kind != PROPERTY
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
