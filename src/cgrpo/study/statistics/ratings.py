"""Ratings of single pictures: means, and how far a mean of so few raters can be trusted."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from cgrpo.statistics import Interval
from cgrpo.study.manifest import Item, Study
from cgrpo.study.statistics.intervals import typical_values
from cgrpo.study.statistics.raters import scores_by_item
from cgrpo.study.store import Response


@dataclass(frozen=True)
class Rated:
    """A picture's ratings on one question, 0 to 5."""

    item: Item
    ratings: tuple[float, ...]

    @property
    def mean(self) -> float:
        return sum(self.ratings) / len(self.ratings)


@dataclass(frozen=True)
class RatingMean:
    """A method's mean rating over items, with its intervals over items and subjects."""

    question: str
    method: str
    items: int
    mean: float
    over_items: Interval
    over_subjects: Interval


def rated(study: Study, responses: Iterable[Response], question: str) -> list[Rated]:
    """Real items of a rating study that have a rating."""
    items = study.by_id()
    return [Rated(items[item], tuple(scores)) for item, scores in scores_by_item(study, responses, question).items()]


def rating_mean(ratings: Sequence[Rated], question: str, method: str) -> RatingMean | None:
    """None where nothing of the method was rated."""
    own = [one for one in ratings if one.item.arms[0].method == method]
    if not own:
        return None
    by_subject: dict[str, list[float]] = defaultdict(list)
    for one in own:
        by_subject[one.item.subject].append(one.mean)
    means = np.array([one.mean for one in own])
    sums, counts = (np.array([measure(of) for of in by_subject.values()], dtype=float) for measure in (sum, len))
    return RatingMean(
        question,
        method,
        len(own),
        float(np.mean(means)),
        typical_values(means, np.ones(len(own))),
        typical_values(sums, counts),
    )


def reliability(units: Iterable[Sequence[float]]) -> tuple[float, float]:
    """Of an item's mean over its raters, and of one rater: the intraclass correlations (1, k) and (1, 1).

    ``units``: the values that each item was given. From a one-way analysis of variance (Shrout and Fleiss 1979), k the
    mean number of raters where numbers differ; not below 0. NaN without two items and a second rater.
    """
    rated = [unit for unit in units if len(unit)]
    total = sum(map(len, rated))
    if len(rated) < 2 or total <= len(rated):
        return math.nan, math.nan
    grand = sum(map(sum, rated)) / total
    between = sum(len(unit) * (sum(unit) / len(unit) - grand) ** 2 for unit in rated) / (len(rated) - 1)
    within = sum((x - sum(unit) / len(unit)) ** 2 for unit in rated for x in unit) / (total - len(rated))
    if not between > 0:
        return math.nan, math.nan
    k = total / len(rated)
    return max(0.0, (between - within) / between), max(0.0, (between - within) / (between + (k - 1) * within))
