"""Intervals and tests that evaluation, analysis, the study and reproduced tables share. Needs numpy and scipy alone.

Interval          bounds; every estimate of the package that has a 95 % interval is one, or holds one
student_interval  Student's interval of a mean
sign_flip         test of paired differences: both signs alike under the null
holm              p-values of a family, adjusted
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.95
FLIPS = 10_000  # at most; all flips are counted where there are no more
SEED = 0


@dataclass(frozen=True)
class Interval:
    """Bounds of a confidence interval of 95 % where nothing else is said; both NaN where they are not known."""

    low: float
    high: float

    def above(self, value: float = 0.0) -> bool:
        """Whether the whole interval lies above ``value``; False where the bounds are not known."""
        return self.low > value

    def below(self, value: float = 0.0) -> bool:
        """Whether the whole interval lies below ``value``; False where the bounds are not known."""
        return self.high < value


UNKNOWN = Interval(math.nan, math.nan)


def student_interval(
    mean: float, deviation: float, count: int, freedom: float | None = None, level: float = LEVEL
) -> Interval:
    """Student's interval around the mean of ``count`` independent values with this standard deviation.

    ``freedom``: degrees of freedom, by default ``count`` - 1. ``UNKNOWN`` where there are none.
    """
    freedom = count - 1 if freedom is None else freedom
    if freedom <= 0:
        return UNKNOWN
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * deviation / count**0.5
    return Interval(mean - half, mean + half)


def sign_flip(gap_S: NDArray[np.float64], flips: int = FLIPS, seed: int = SEED) -> tuple[float, bool]:
    """Two-sided p-value of a mean difference of zero, and whether it is exact.

    gap_S: one mean difference per subject, float64 [S]. Under the null each is as likely with either sign. All 2^S
    flips are counted where they are no more than ``flips`` (13 subjects by default). Otherwise ``flips`` are drawn,
    and the p-value is (hits + 1) / (flips + 1), never 0 (Phipson and Smyth 2010). NaN without subjects.

    scipy's permutation_test counts ties relative to the observed sum, so it loses those of a sum near 0, and its
    sampled p-value doubles that of one side.
    """
    count = len(gap_S)
    if not count:
        return math.nan, True
    exact = 2**count <= flips
    if exact:
        signs_FS = 1 - 2 * ((np.arange(2**count)[:, None] >> np.arange(count)) & 1)
    else:
        signs_FS = np.random.default_rng(seed).choice((-1, 1), size=(flips, count))
    # Sums of the same numbers in another order differ by rounding.
    least = abs(gap_S.sum()) - 1e-12 * np.abs(gap_S).sum()
    hits = int((np.abs(signs_FS @ gap_S) >= least).sum())
    return (hits / 2**count if exact else (hits + 1) / (flips + 1)), exact


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values of a family, in the same order; NaN stays NaN and does not count."""
    order = sorted((p, n) for n, p in enumerate(p_values) if not math.isnan(p))
    adjusted = [math.nan] * len(p_values)
    largest = 0.0
    for rank, (p, n) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        adjusted[n] = largest
    return adjusted
