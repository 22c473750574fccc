"""Intervals over clusters: items, subjects or raters are the sample, and the answers within one depend on each other.

Below ``FEWEST`` clusters there is no interval. Even if all of them agree, a fair coin does the same in more than 5 % of
cases: 2 / 2^5 = 0.0625.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from cgrpo.statistics import LEVEL, UNKNOWN, Interval

Array = NDArray[np.float64]
FEWEST = 6
DRAWS, SEED = 9_999, 0
TAIL = (1 - LEVEL) / 2
NORMAL = float(stats.norm.isf(TAIL))


@dataclass(frozen=True)
class RateInterval(Interval):
    """A win rate's interval, and the two-sided ``p`` of a rate of one half.

    p <= 0.05 exactly where the interval excludes one half. ``clusters``: how many there are.
    """

    p: float
    clusters: int


def rate_interval(wins_C: Array, losses_C: Array, votes_C: Array) -> RateInterval:
    """Of (wins + ties / 2) / votes, from each cluster's counts: an exact interval, no narrower than single votes allow.

    Sign flips of the clusters are exact under a null where a surplus of wins and one of losses are equally likely in
    each cluster, however the votes within it depend on each other. Clusters that happen to agree would leave no width,
    so the interval covers that of independent votes as well, and p is the larger of the two.
    """
    low, high, p = _sign_flips((votes_C + wins_C - losses_C) / 2, votes_C)
    single, single_p = _single_votes(*(float(count_C.sum()) for count_C in (wins_C, losses_C, votes_C)))
    if not math.isnan(low):
        low, high = min(low, single.low), max(high, single.high)
    return RateInterval(low, high, max(p, single_p), len(votes_C))


def typical_values(sum_C: Array, count_C: Array) -> Interval:
    """The interval of sum / count that sign flips of clusters give; UNKNOWN below FEWEST clusters.

    The ratios of all nonempty subsets of clusters are typical values: they cut the line into pieces that hold the
    centre equally often (Hartigan, Using subsample values as typical values, JASA 64, 1969). The interval inverts the
    sign-flip test.
    """
    low, high, _ = _sign_flips(sum_C, count_C)
    return Interval(low, high)


def _sign_flips(sum_C: Array, count_C: Array) -> tuple[float, float, float]:
    """Bounds of the interval, and p of a ratio of one half."""
    chosen_DC = _subsets(len(count_C))
    ratio_D = np.sort((chosen_DC @ sum_C) / (chosen_DC @ count_C))
    pieces = len(ratio_D) + 1
    p = 2 * (min((ratio_D <= 0.5).sum(), (ratio_D >= 0.5).sum()) + 1) / pieces
    outside = math.floor(TAIL * pieces + 1e-9)
    bounds = (float(ratio_D[outside - 1]), float(ratio_D[-outside])) if outside else (math.nan, math.nan)
    return *bounds, min(1.0, float(p))


@functools.lru_cache(maxsize=4)  # the same for every row of a table
def _subsets(clusters: int) -> Array:
    """Nonempty subsets, a row of 0 and 1 each [D, C]: all of them, or DRAWS at random. Not to be written to."""
    if 2**clusters <= DRAWS + 1:
        chosen_DC = np.arange(1, 2**clusters)[:, None] >> np.arange(clusters) & 1
    else:
        chosen_DC = np.random.default_rng(SEED).integers(2, size=(DRAWS, clusters))
        chosen_DC[~chosen_DC.any(1)] = 1
    chosen_DC = chosen_DC.astype(float)
    chosen_DC.flags.writeable = False
    return chosen_DC


def _single_votes(wins: float, losses: float, votes: float) -> tuple[Interval, float]:
    """Of the win rate of independent votes, and p of one half (Bonett and Price, Adjusted Wald confidence interval for
    a difference of binomial proportions based on paired data, 2012)."""
    gap = (wins - losses) / (votes + 2)
    error = math.sqrt(((wins + losses + 2) / (votes + 2) - gap**2) / (votes + 2))
    half = NORMAL * error
    bounds = Interval(max(0.0, (1 + gap - half) / 2), min(1.0, (1 + gap + half) / 2))
    return bounds, math.erfc(abs(gap) / error / math.sqrt(2))


def percentiles(value_D: Array, clusters: int) -> Interval:
    """Expanded percentile interval of bootstrapped values; UNKNOWN below FEWEST clusters.

    Its percentiles make it as wide as Student's for few clusters (Hesterberg, What teachers should know about the
    bootstrap, 2015, section 3.5). Draws that are NaN do not count.
    """
    value_D = value_D[np.isfinite(value_D)]
    if not len(value_D) or clusters < FEWEST:
        return UNKNOWN
    wide = math.sqrt(clusters / (clusters - 1)) * stats.t.ppf(1 - TAIL, clusters - 1)
    tail = float(stats.norm.cdf(-wide))
    low, high = np.quantile(value_D, [tail, 1 - tail])
    return Interval(float(low), float(high))
