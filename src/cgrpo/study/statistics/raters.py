"""Raters: how far they agree, whom the rule fixed beforehand excludes, and how far a mean of their ratings is sure."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cgrpo.statistics import Interval
from cgrpo.study.manifest import FIRST, SECOND, TIE, Item, Study, preferred
from cgrpo.study.statistics.intervals import typical_values
from cgrpo.study.store import Response

Level = Literal["nominal", "ordinal", "interval"]
FOR_SECOND = {FIRST: 0.0, TIE: 0.5, SECOND: 1.0}


def krippendorff_alpha(units: Iterable[Sequence[float]], level: Level) -> float:
    """Alpha of the values that each unit (item) was given, by any number of raters.

    1 - observed / expected disagreement by coincidences (Krippendorff, Content Analysis, 2004, chapter 11); units with
    fewer than two values do not count. NaN where nothing was rated twice, or all values are equal.
    """
    pairable = [unit for unit in units if len(unit) > 1]
    values = sorted({value for unit in pairable for value in unit})
    if len(values) < 2:
        return math.nan
    place = {value: n for n, value in enumerate(values)}
    met_VV = np.zeros((len(values), len(values)))
    for unit in pairable:
        count_V = np.bincount([place[value] for value in unit], minlength=len(values)).astype(float)
        met_VV += (np.outer(count_V, count_V) - np.diag(count_V)) / (len(unit) - 1)
    total_V = met_VV.sum(0)
    distance_VV = _distances(np.array(values, dtype=float), total_V, level)
    observed = (met_VV * distance_VV).sum() / total_V.sum()
    expected = (np.outer(total_V, total_V) * distance_VV).sum() / (total_V.sum() * (total_V.sum() - 1))
    return float(1 - observed / expected)


def _distances(value_V: NDArray[np.float64], total_V: NDArray[np.float64], level: Level) -> NDArray[np.float64]:
    if level == "nominal":
        return (value_V[:, None] != value_V[None, :]).astype(float)
    if level == "interval":
        return (value_V[:, None] - value_V[None, :]) ** 2
    upto_V = np.cumsum(total_V) - total_V / 2  # of the ranks between two values, both ends half
    return (upto_V[:, None] - upto_V[None, :]) ** 2


def scores_by_item(study: Study, responses: Iterable[Response], question: str) -> dict[str, list[float]]:
    """By real item's id what raters gave it: 0, 1/2, 1 for first, tie, second, whatever the side; or ratings 0 to 5."""
    items = study.by_id()
    scores: dict[str, list[float]] = defaultdict(list)
    for one in responses:
        if one.question == question and items[one.item].kind == "item":
            pairwise = study.mode == "pairwise"
            score = FOR_SECOND[preferred(one.choice, one.first_on_left)] if pairwise else float(one.choice)
            scores[one.item].append(score)
    return dict(scores)


def agreement(study: Study, responses: Iterable[Response], question: str, level: Level = "ordinal") -> float:
    """Alpha over real items, of choices by picture (first < tie < second) or of ratings."""
    return krippendorff_alpha(scores_by_item(study, responses, question).values(), level)


@dataclass(frozen=True)
class RaterVerdict:
    """A rater: pages answered, checks answered and failed, whether the rule excludes them, median seconds a page
    (of first answers; None where no showing was recorded), and answers given anew later."""

    number: int
    answered: int
    checks: int
    failed: int
    excluded: bool
    seconds: float | None
    corrected: int


def judge_raters(study: Study, responses: Iterable[Response]) -> list[RaterVerdict]:
    """In order of their numbers. A check is failed if any of its golds is missed."""
    by_rater: dict[int, list[Response]] = defaultdict(list)
    for one in responses:
        by_rater[one.rater].append(one)
    return [_judge(study, number, by_rater[number]) for number in sorted(by_rater)]


def _judge(study: Study, number: int, own: list[Response]) -> RaterVerdict:
    items = study.by_id()
    marks: dict[str, bool] = {}
    for one in own:
        item = items[one.item]
        right = item.is_right(one.question, one.choice, one.first_on_left) if item.kind == "check" else None
        if right is not None:
            marks[one.item] = marks.get(one.item, True) and right
    failed = sum(not right for right in marks.values())
    pages = {one.item: one for one in own}
    seconds = [
        (datetime.fromisoformat(one.answered_at) - datetime.fromisoformat(one.shown_at)).total_seconds()
        for one in pages.values()
        if one.shown_at and one.revision == 1
    ]
    return RaterVerdict(
        number,
        len(pages),
        len(marks),
        failed,
        failed > study.rules.failed_at_most,
        median(seconds) if seconds else None,
        sum(one.revision > 1 for one in pages.values()),
    )


def kept(study: Study, responses: Iterable[Response]) -> list[Response]:
    """Answers of raters that the rule does not exclude."""
    responses = list(responses)
    out = {one.number for one in judge_raters(study, responses) if one.excluded}
    return [one for one in responses if one.rater not in out]


@dataclass(frozen=True)
class RatedPicture:
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


def rated(study: Study, responses: Iterable[Response], question: str) -> list[RatedPicture]:
    """Real items of a rating study that have a rating."""
    items = study.by_id()
    return [
        RatedPicture(items[item], tuple(scores)) for item, scores in scores_by_item(study, responses, question).items()
    ]


def rating_mean(ratings: Sequence[RatedPicture], question: str, method: str) -> RatingMean | None:
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
