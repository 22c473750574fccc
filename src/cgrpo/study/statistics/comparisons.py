"""Answers as votes for methods: shares of wins with intervals over items and subjects, and strengths on one scale."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import minimize

from cgrpo.statistics import LEVEL, Interval
from cgrpo.study.manifest import FIRST, LEFT, SECOND, TIE, Study, preferred
from cgrpo.study.statistics.intervals import SEED, RateInterval, percentiles, rate_interval
from cgrpo.study.store import Response

WIN, LOSS = "win", "loss"
_OUTCOMES = {FIRST: LOSS, TIE: TIE, SECOND: WIN}  # the second picture's method against the first's


@dataclass(frozen=True)
class Vote:
    """``outcome`` "win": ``method`` was preferred to ``baseline``; ``left``: which side was chosen, None for a tie."""

    rater: int
    item: str
    subject: str
    question: str
    baseline: str
    method: str
    outcome: str
    left: bool | None


def votes_of(study: Study, responses: Iterable[Response]) -> list[Vote]:
    """Votes on real items of a pairwise study."""
    items = study.by_id()
    votes = []
    for one in responses:
        item = items[one.item]
        if item.kind == "item":
            outcome = _OUTCOMES[preferred(one.choice, one.first_on_left)]
            left = None if one.choice == TIE else one.choice == LEFT
            first, second = (arm.method for arm in item.arms)
            votes.append(Vote(one.rater, item.id, item.subject, one.question, first, second, outcome, left))
    return votes


OUTCOMES = (WIN, TIE, LOSS)


@dataclass(frozen=True)
class Shares:
    """A method against another on one question.

    counts        votes by outcome: win, tie, loss
    share         of each; over_items, over_subjects: 95 % intervals of each share
    win_rate      wins, and half of the ties; its intervals and tests over items, subjects and raters
    items_won     by the majority of their votes; items_lost likewise
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
    win_rate_items: RateInterval
    win_rate_subjects: RateInterval
    win_rate_raters: RateInterval
    items_won: int
    items_lost: int


def shares(votes: Sequence[Vote], question: str, baseline: str, method: str) -> Shares | None:
    """None without a vote."""
    own = [v for v in votes if (v.question, v.baseline, v.method) == (question, baseline, method)]
    if not own:
        return None
    by_item, by_subject = _table(own, lambda vote: vote.item), _table(own, lambda vote: vote.subject)
    total_O = by_item.sum(0)
    return Shares(
        question,
        baseline,
        method,
        len(own),
        len(by_item),
        len(by_subject),
        {name: int(count) for name, count in zip(OUTCOMES, total_O, strict=True)},
        {name: float(count / total_O.sum()) for name, count in zip(OUTCOMES, total_O, strict=True)},
        _share_intervals(by_item),
        _share_intervals(by_subject),
        float((total_O[0] + total_O[1] / 2) / total_O.sum()),
        _win_rate(by_item),
        _win_rate(by_subject),
        _win_rate(_table(own, lambda vote: vote.rater)),
        int((by_item[:, 0] > by_item[:, 2]).sum()),
        int((by_item[:, 0] < by_item[:, 2]).sum()),
    )


def _table(votes: Sequence[Vote], cluster: Callable[[Vote], Any]) -> NDArray[np.float64]:
    """Votes by cluster and outcome [C, 3]."""
    counts: dict[Any, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for vote in votes:
        counts[cluster(vote)][OUTCOMES.index(vote.outcome)] += 1
    return np.array([counts[name] for name in sorted(counts)])


def _win_rate(counts_C3: NDArray[np.float64]) -> RateInterval:
    return rate_interval(counts_C3[:, 0], counts_C3[:, 2], counts_C3.sum(1))


def _share_intervals(counts_C3: NDArray[np.float64]) -> dict[str, Interval]:
    votes_C = counts_C3.sum(1)
    rates = {
        name: rate_interval(count_C, votes_C - count_C, votes_C)
        for name, count_C in zip(OUTCOMES, counts_C3.T, strict=True)
    }
    return {name: Interval(rate.low, rate.high) for name, rate in rates.items()}


def side_bias(votes: Sequence[Vote]) -> dict[str, Any]:
    """How often the left picture was chosen where one was, with an exact interval; sides are balanced by design."""
    chosen = [vote.left for vote in votes if vote.left is not None]
    if not chosen:
        return {"chosen": 0, "left": math.nan, "low": math.nan, "high": math.nan}
    test = stats.binomtest(sum(chosen), len(chosen))
    interval = test.proportion_ci(LEVEL)
    return {
        "chosen": len(chosen),
        "left": sum(chosen) / len(chosen),
        "low": float(interval.low),
        "high": float(interval.high),
    }


FITS = 200  # fits of the bootstrap
RIDGE = 1e-3  # keeps strengths finite where a method never lost


@dataclass(frozen=True)
class Davidson:
    """strengths: log-strengths by method, of mean 0, with 95 % intervals over items; ``tie``: log of Davidson's nu."""

    question: str
    strengths: dict[str, float]
    intervals: dict[str, Interval]
    tie: float


def davidson(votes: Sequence[Vote], question: str, methods: Sequence[str], draws: int = FITS) -> Davidson | None:
    """Davidson, On extending the Bradley-Terry model to accommodate ties, JASA 65, 1970.

    P(i beats j) = p_i / d, P(tie) = nu sqrt(p_i p_j) / d, d = p_i + p_j + nu sqrt(p_i p_j). None without votes.
    """
    own = [vote for vote in votes if vote.question == question]
    if not own:
        return None
    place = {method: n for n, method in enumerate(methods)}
    items = sorted({vote.item for vote in own})
    row = {item: n for n, item in enumerate(items)}
    pair_V = np.array([(place[vote.method], place[vote.baseline]) for vote in own])
    outcome_V = np.array([0 if vote.outcome == WIN else 1 if vote.outcome == TIE else 2 for vote in own])
    item_V = np.array([row[vote.item] for vote in own])
    best = _fit(pair_V, outcome_V, np.ones(len(own)), len(methods))
    drawn_DI = np.random.default_rng(SEED).multinomial(len(items), np.full(len(items), 1 / len(items)), size=draws)
    fits = np.array([_fit(pair_V, outcome_V, drawn_I[item_V], len(methods), best) for drawn_I in drawn_DI])
    return Davidson(
        question,
        {method: float(best[n]) for method, n in place.items()},
        {method: percentiles(fits[:, n], len(items)) for method, n in place.items()},
        float(best[-1]),
    )


def _fit(
    pair_V: NDArray[np.int64],
    outcome_V: NDArray[np.int64],
    weight_V: NDArray[np.float64],
    count: int,
    start: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Log-strengths of mean 0, then log nu [M + 1]: the maximum of the weighted likelihood."""

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        strength_V2, tie = parameters[pair_V], parameters[-1]
        score_V3 = np.stack([strength_V2[:, 0], tie + strength_V2.mean(1), strength_V2[:, 1]], 1)
        score_V3 -= score_V3.max(1, keepdims=True)
        p_V3 = np.exp(score_V3)
        norm_V = p_V3.sum(1)
        value = weight_V @ (np.log(norm_V) - score_V3[np.arange(len(outcome_V)), outcome_V])
        p_V3 /= norm_V[:, None]
        p_V3[np.arange(len(outcome_V)), outcome_V] -= 1
        p_V3 *= weight_V[:, None]
        slope = np.zeros_like(parameters)
        np.add.at(slope, pair_V[:, 0], p_V3[:, 0] + p_V3[:, 1] / 2)
        np.add.at(slope, pair_V[:, 1], p_V3[:, 2] + p_V3[:, 1] / 2)
        slope[-1] = p_V3[:, 1].sum()
        return float(value + RIDGE * parameters @ parameters), slope + 2 * RIDGE * parameters

    best = minimize(loss, np.zeros(count + 1) if start is None else start, jac=True, method="L-BFGS-B").x
    best[:-1] -= best[:-1].mean()
    return best
