"""Which reward sees what people see: correlations with mean ratings, and how high they could be (the paper's Table 6).

Scores and ratings are paired by picture: method, subject, prompt and seed.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from cgrpo.scores import Column, ScoreRow
from cgrpo.statistics import Interval
from cgrpo.study.manifest import Item
from cgrpo.study.statistics.intervals import FEWEST, SEED, percentiles
from cgrpo.study.statistics.raters import RatedPicture, reliability

DRAWS = 2_000
Array = NDArray[np.float64]
Correlation = Callable[[Array, Array], float]
Picture = tuple[str, str, int | None, int | None]


@dataclass(frozen=True)
class Alignment:
    """A metric against the mean ratings on one question.

    pictures        that have both; unscored: rated ones without a score
    pearson, spearman, kendall (tau-b) with 95 % intervals over pictures
    within          Pearson's correlation of differences from the mean of the same subject and prompt, over ``pairs``
                    pictures of prompts that have several: what is left when easy and hard prompts are taken out
    """

    question: str
    metric: str
    pictures: int
    unscored: int
    pearson: float
    spearman: float
    kendall: float
    intervals: dict[str, Interval]
    within: float
    within_interval: Interval
    pairs: int


@dataclass(frozen=True)
class Difference:
    """Of two metrics' Spearman correlations with the same ratings, on pictures that both scored."""

    question: str
    better: str
    worse: str
    pictures: int
    difference: float
    interval: Interval


@dataclass(frozen=True)
class QuestionAlignment:
    """All metrics on one question; ``ceiling``: the most that a correlation can be, given how far raters agree."""

    question: str
    raters: float
    reliability: float
    ceiling: float
    alignments: list[Alignment]
    differences: list[Difference]


def align(rated: Sequence[RatedPicture], rows: Iterable[ScoreRow], question: str, axis: str) -> QuestionAlignment:
    """Every metric of ``axis`` ("identity" or "prompt") among ``rows`` against the ratings, best Spearman first."""
    scores: dict[Column, dict[Picture, float]] = defaultdict(dict)
    for row in rows:
        column = row.column
        if column.axis == axis and row.score is not None:
            scores[column][(row.method, row.subject, row.prompt_index, row.seed)] = row.score
    mean, _ = reliability([one.ratings for one in rated])
    alignments = [_align(rated, question, column, by_picture) for column, by_picture in scores.items()]
    alignments.sort(key=lambda one: -one.spearman if math.isfinite(one.spearman) else math.inf)
    columns = {column.label: by_picture for column, by_picture in scores.items()}
    best = alignments[0].metric if alignments else ""
    return QuestionAlignment(
        question,
        float(np.mean([len(one.ratings) for one in rated])) if rated else math.nan,
        mean,
        mean**0.5,
        alignments,
        [_difference(rated, question, best, other.metric, columns) for other in alignments[1:]],
    )


def picture_of(item: Item) -> Picture:
    """What an item of a rating study shows."""
    return item.arms[0].method, item.subject, item.prompt_index, item.arms[0].seed


def _align(
    rated: Sequence[RatedPicture], question: str, column: Column, score_of: Mapping[Picture, float]
) -> Alignment:
    both = [one for one in rated if picture_of(one.item) in score_of]
    score_N = np.array([score_of[picture_of(one.item)] for one in both])
    rating_N = np.array([one.mean for one in both])
    drawn_DN = _draws(len(both))
    kinds: dict[str, Correlation] = {"pearson": pearson, "spearman": spearman, "kendall": kendall}
    task_N = [(one.item.subject, one.item.prompt_index) for one in both]
    kept_M, score_M, rating_M, task_M = _centred(score_N, rating_N, task_N)
    return Alignment(
        question,
        column.label,
        len(both),
        len(rated) - len(both),
        pearson(score_N, rating_N),
        spearman(score_N, rating_N),
        kendall(score_N, rating_N),
        {
            name: percentiles(np.array([kind(score_N[draw_N], rating_N[draw_N]) for draw_N in drawn_DN]), len(both))
            for name, kind in kinds.items()
        },
        pearson(score_M, rating_M),
        _over_tasks(score_M, rating_M, task_M),
        len(kept_M),
    )


def _draws(count: int) -> NDArray[np.int64]:
    """Pictures drawn again [D, N]; none below FEWEST."""
    draws = DRAWS if count >= FEWEST else 0
    return np.random.default_rng(SEED).integers(max(count, 1), size=(draws, count))


def _centred(score_N: Array, rating_N: Array, task_N: Sequence[Any]) -> tuple[list[int], Array, Array, list[Any]]:
    """Scores and ratings less the mean of their subject and prompt, of those that have several pictures."""
    groups: dict[Any, list[int]] = defaultdict(list)
    for n, task in enumerate(task_N):
        groups[task].append(n)
    kept = [n for group in groups.values() if len(group) > 1 for n in group]
    means = {n: group for group in groups.values() for n in group}
    score_M, rating_M = (np.array([v_N[n] - v_N[means[n]].mean() for n in kept]) for v_N in (score_N, rating_N))
    return kept, score_M, rating_M, [task_N[n] for n in kept]


def _over_tasks(score_M: Array, rating_M: Array, task_M: Sequence[Any]) -> Interval:
    """Of the correlation within prompts: prompts are drawn again, with all of their pictures."""
    places = {task: n for n, task in enumerate(dict.fromkeys(task_M))}
    sums_T3 = np.zeros((len(places), 3))
    for score, rating, task in zip(score_M, rating_M, task_M, strict=True):
        sums_T3[places[task]] += (score * rating, score**2, rating**2)
    drawn_D3 = sums_T3[_draws(len(places))].sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return percentiles(drawn_D3[:, 0] / np.sqrt(drawn_D3[:, 1] * drawn_D3[:, 2]), len(places))


def _difference(
    rated: Sequence[RatedPicture], question: str, one: str, other: str, columns: Mapping[str, Mapping[Picture, float]]
) -> Difference:
    both = [r for r in rated if picture_of(r.item) in columns[one] and picture_of(r.item) in columns[other]]
    rating_N = np.array([r.mean for r in both])
    one_N, other_N = (np.array([columns[name][picture_of(r.item)] for r in both]) for name in (one, other))
    drawn = [
        spearman(one_N[draw_N], rating_N[draw_N]) - spearman(other_N[draw_N], rating_N[draw_N])
        for draw_N in _draws(len(both))
    ]
    difference = spearman(one_N, rating_N) - spearman(other_N, rating_N)
    return Difference(question, one, other, len(both), difference, percentiles(np.array(drawn), len(both)))


def pearson(x_N: Array, y_N: Array) -> float:
    """NaN where one of the two doesn't vary, or there are fewer than three."""
    if len(x_N) < 3 or np.ptp(x_N) == 0 or np.ptp(y_N) == 0:
        return math.nan
    return float(np.corrcoef(x_N, y_N)[0, 1])


def spearman(x_N: Array, y_N: Array) -> float:
    """Pearson's of the ranks, ties sharing theirs."""
    return pearson(stats.rankdata(x_N), stats.rankdata(y_N))


def kendall(x_N: Array, y_N: Array) -> float:
    """tau-b, which counts ties out."""
    if len(x_N) < 3 or np.ptp(x_N) == 0 or np.ptp(y_N) == 0:
        return math.nan
    tau: Any = stats.kendalltau(x_N, y_N)
    return float(tau.statistic)
