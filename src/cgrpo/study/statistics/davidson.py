"""Several methods on one scale: Bradley and Terry's model with ties."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from cgrpo.statistics import Interval
from cgrpo.study.manifest import TIE
from cgrpo.study.statistics.shares import percentiles, resampled
from cgrpo.study.statistics.votes import WIN, Vote

DRAWS = 200  # fits of the bootstrap
RIDGE = 1e-3  # keeps strengths finite where a method never lost


@dataclass(frozen=True)
class Davidson:
    """strengths: log-strengths by method, of mean 0, with 95 % intervals over items; ``tie``: log of Davidson's nu."""

    question: str
    strengths: dict[str, float]
    intervals: dict[str, Interval]
    tie: float


def davidson(votes: Sequence[Vote], question: str, methods: Sequence[str], draws: int = DRAWS) -> Davidson | None:
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
    drawn_DI = resampled(len(items), draws)
    fits = np.array([_fit(pair_V, outcome_V, drawn_I[item_V], len(methods), best) for drawn_I in drawn_DI])
    fits = fits.reshape(len(drawn_DI), len(methods) + 1)
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

    found = minimize(loss, np.zeros(count + 1) if start is None else start, jac=True, method="L-BFGS-B").x
    found[:-1] -= found[:-1].mean()
    return found
