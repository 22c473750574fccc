"""Means with intervals, over groups or tasks."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import stats
from torch import Tensor

from cgrpo.evaluation.show.words import interval, number


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval, Student's over ``count`` independent parts; NaN bounds for fewer than two."""

    mean: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        bounds = "" if math.isnan(self.low) else f" [{interval(self.low, self.high, signed=False)}]"
        return f"{number(self.mean)}{bounds}"


def estimate(values_P: Tensor, level: float = 0.95) -> Estimate:
    """Of [P] values, NaN among them left out."""
    values = values_P[~values_P.isnan()].double()
    count = len(values)
    mean = values.mean().item() if count else math.nan
    half = math.nan
    if count > 1:
        half = float(stats.t.ppf((1 + level) / 2, count - 1)) * values.std().item() / count**0.5
    return Estimate(mean, mean - half, mean + half, count)
