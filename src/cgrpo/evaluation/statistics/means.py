"""Means over subjects and prompts, every pair of them alike whatever its number of pictures."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from cgrpo.evaluation.scores import ScoreRow
from cgrpo.evaluation.scores.cells import (
    ALL,
    Cell,
    Column,
    Pair,
    column_of,
    gather,
    in_group,
    pair_means,
    seed_deviation,
)


@dataclass(frozen=True)
class Mean:
    """A row's mean in a column, over pairs of the group; every pair weighs alike, whatever its number of pictures.

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


def mean_of(column: Column, method: str, pairs: dict[Pair, Cell], group: str = ALL) -> Mean | None:
    """None where the group has no picture; a mean of NaN where none of its pictures has a score."""
    here = [cell for pair, cell in pairs.items() if in_group(pair, group)]
    if not here:
        return None
    values = list(pair_means(pairs, group).values())
    return Mean(
        method,
        column.label,
        column.axis,
        group,
        fmean(values) if values else math.nan,
        len(values),
        sum(len(cell.scores) + cell.unscored for cell in here),
        sum(cell.unscored for cell in here),
        seed_deviation(pairs, group),
    )


def short_summary(rows: Iterable[ScoreRow]) -> list[dict[str, Any]]:
    """``{method, metric, protocol, mean, pictures, failed}`` of each column, in order of appearance."""
    rows = list(rows)
    cells, summary = gather(rows), []
    for method, column in dict.fromkeys((row.method, column_of(row)) for row in rows):
        found = mean_of(column, method, cells[column][method])
        assert found is not None  # a row is a picture
        summary.append(
            {
                "method": method,
                "metric": column.metric,
                "protocol": column.protocol,
                "mean": None if math.isnan(found.mean) else found.mean,
                "pictures": found.pictures,
                "failed": found.unscored,
            }
            | ({} if column.reference is None else {"reference": column.reference})
        )
    return summary
