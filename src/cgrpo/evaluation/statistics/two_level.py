"""Training seeds and subjects together: another training, on other subjects, would come out where?"""

from __future__ import annotations

from dataclasses import dataclass

from scipy import stats
from torch import Tensor


@dataclass(frozen=True)
class TwoLevel:
    """A mean with its 95 % interval over ``seeds`` and ``subjects``; of one seed, over subjects alone."""

    mean: float
    low: float
    high: float
    seeds: int
    subjects: int


def two_level(gap_SJ: Tensor, level: float = 0.95) -> TwoLevel:
    """The mean of ``gap_SJ`` [seeds, subjects], all seeds on the same subjects, both drawn at random.

    Two crossed random effects without replication: by the mean squares of rows, columns and rest, the variance of the
    grand mean is (MS_seed + MS_subject - MS_rest) / (S J), its degrees of freedom Satterthwaite's (Searle, Casella and
    McCulloch, Variance Components, 1992, chapter 4). It is taken no smaller than the larger of the two alone.
    benchmarks/interval_coverage.py measures the coverage. NaN bounds for fewer than two subjects.
    """
    seeds, subjects = gap_SJ.shape
    gap_SJ = gap_SJ.double()
    mean = gap_SJ.mean()
    row_S, column_J = gap_SJ.mean(1) - mean, gap_SJ.mean(0) - mean
    if subjects < 2:
        return TwoLevel(mean.item(), float("nan"), float("nan"), seeds, subjects)
    by_subject = seeds * column_J.square().sum().item() / (subjects - 1)
    if seeds == 1:
        variance, freedom = by_subject / subjects, float(subjects - 1)
    else:
        by_seed = subjects * row_S.square().sum().item() / (seeds - 1)
        rest_SJ = gap_SJ - mean - row_S[:, None] - column_J
        rest = rest_SJ.square().sum().item() / ((seeds - 1) * (subjects - 1))
        squares = {seeds - 1: by_seed, subjects - 1: by_subject}
        total = by_seed + by_subject - rest
        parts = by_seed**2 / (seeds - 1) + by_subject**2 / (subjects - 1) + rest**2 / ((seeds - 1) * (subjects - 1))
        freedom = total**2 / parts if total > 0 and parts > 0 else float(min(squares))
        variance = max(total, by_seed, by_subject) / (seeds * subjects)
    half = float(stats.t.ppf((1 + level) / 2, max(freedom, 1.0))) * variance**0.5
    return TwoLevel(mean.item(), mean.item() - half, mean.item() + half, seeds, subjects)
