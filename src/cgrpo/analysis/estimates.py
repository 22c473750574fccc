"""Means with intervals, over groups or tasks."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from cgrpo.evaluation.show.table import interval, number
from cgrpo.statistics import Interval, student_interval


@dataclass(frozen=True)
class Estimate(Interval):
    """A mean with Student's 95 % interval over ``count`` independent parts; NaN bounds for fewer than two."""

    mean: float
    count: int

    def __str__(self) -> str:
        bounds = "" if math.isnan(self.low) else f" [{interval(self.low, self.high, signed=False)}]"
        return f"{number(self.mean)}{bounds}"


def estimate(values_P: Tensor) -> Estimate:
    """The mean of [P] values; NaN among them are left out."""
    values = values_P[~values_P.isnan()].double()
    mean = values.mean().item() if len(values) else math.nan
    found = student_interval(mean, values.std().item() if len(values) > 1 else math.nan, len(values))
    return Estimate(found.low, found.high, mean, len(values))
