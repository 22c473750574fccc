"""Win, tie and loss shares with intervals that count items and subjects, never single answers."""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from cgrpo.statistics import LEVEL, UNKNOWN, Interval
from cgrpo.study.manifest import TIE
from cgrpo.study.statistics.votes import LOSS, WIN, Vote

DRAWS, SEED = 10_000, 0
OUTCOMES = (WIN, TIE, LOSS)


@dataclass(frozen=True)
class Shares:
    """A method against another on one question.

    counts       votes by outcome: win, tie, loss
    share        of each; items, subjects: 95 % intervals of each share, over items and over subjects
    win_rate     wins, and half of the ties; with its two intervals
    sign_p       exact two-sided test of the items' majorities: (items won, items lost) against one half
    """

    question: str
    baseline: str
    method: str
    votes: int
    items: int
    subjects: int
    counts: dict[str, int]
    share: dict[str, float]
    over_items: dict[str, Interval]
    over_subjects: dict[str, Interval]
    win_rate: float
    win_rate_items: Interval
    win_rate_subjects: Interval
    items_won: int
    items_lost: int
    sign_p: float


def shares(votes: Sequence[Vote], question: str, baseline: str, method: str) -> Shares | None:
    """None without a vote."""
    own = [v for v in votes if (v.question, v.baseline, v.method) == (question, baseline, method)]
    if not own:
        return None
    by_item, by_subject = _table(own, lambda vote: vote.item), _table(own, lambda vote: vote.subject)
    total_O = by_item.sum(0)
    won = int((by_item[:, 0] > by_item[:, 2]).sum())
    lost = int((by_item[:, 0] < by_item[:, 2]).sum())
    items, subjects = _intervals(by_item), _intervals(by_subject)
    return Shares(
        question,
        baseline,
        method,
        len(own),
        len(by_item),
        len(by_subject),
        {name: int(count) for name, count in zip(OUTCOMES, total_O, strict=True)},
        {name: float(count / total_O.sum()) for name, count in zip(OUTCOMES, total_O, strict=True)},
        dict(zip(OUTCOMES, items[:3], strict=True)),
        dict(zip(OUTCOMES, subjects[:3], strict=True)),
        float((total_O[0] + total_O[1] / 2) / total_O.sum()),
        items[3],
        subjects[3],
        won,
        lost,
        float(stats.binomtest(won, won + lost).pvalue) if won + lost else math.nan,
    )


def _table(votes: Sequence[Vote], cluster: Callable[[Vote], str]) -> NDArray[np.float64]:
    """Votes by cluster and outcome [C, 3]."""
    counts: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for vote in votes:
        counts[cluster(vote)][OUTCOMES.index(vote.outcome)] += 1
    return np.array([counts[name] for name in sorted(counts)])


def _intervals(counts_C3: NDArray[np.float64]) -> list[Interval]:
    """Of win, tie, loss and the win rate."""
    drawn_DC = resampled(len(counts_C3))
    if not len(drawn_DC):
        return [UNKNOWN] * 4
    sums_D3 = drawn_DC @ counts_C3
    share_D3 = sums_D3 / sums_D3.sum(1, keepdims=True)
    rate_D = share_D3[:, 0] + share_D3[:, 1] / 2
    return [percentiles(column, len(counts_C3)) for column in (*share_D3.T, rate_D)]


@functools.lru_cache(maxsize=4)  # the same draws for every row, and for all of a report's columns
def resampled(clusters: int, draws: int = DRAWS) -> NDArray[np.float64]:
    """How often each cluster is drawn [D, C] in a bootstrap, not to be written to; empty below two clusters."""
    if clusters < 2:
        return np.empty((0, clusters))
    drawn_DC = np.random.default_rng(SEED).multinomial(clusters, np.full(clusters, 1 / clusters), size=draws)
    drawn_DC = drawn_DC.astype(float)
    drawn_DC.flags.writeable = False
    return drawn_DC


def percentiles(value_D: NDArray[np.float64], clusters: int) -> Interval:
    """Expanded percentile interval: the percentiles that make it as wide as Student's for few clusters (Hesterberg,
    What teachers should know about the bootstrap, 2015, section 3.5). Draws that are NaN do not count."""
    value_D = value_D[np.isfinite(value_D)]
    if not len(value_D) or clusters < 2:
        return UNKNOWN
    wide = math.sqrt(clusters / (clusters - 1)) * stats.t.ppf((1 + LEVEL) / 2, clusters - 1)
    tail = float(stats.norm.cdf(-wide))
    low, high = np.quantile(value_D, [tail, 1 - tail])
    return Interval(float(low), float(high))


def side_bias(votes: Sequence[Vote]) -> dict[str, Any]:
    """How often the left picture was chosen where one was, with an exact interval; sides are balanced by design."""
    chosen = [vote.left for vote in votes if vote.left is not None]
    if not chosen:
        return {"chosen": 0, "left": math.nan, "low": math.nan, "high": math.nan}
    found = stats.binomtest(sum(chosen), len(chosen))
    interval = found.proportion_ci(LEVEL)
    return {
        "chosen": len(chosen),
        "left": sum(chosen) / len(chosen),
        "low": float(interval.low),
        "high": float(interval.high),
    }
