"""Tests of paired differences with subjects as the sample."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

DRAWS = 10_000  # of the permutation test; fewer flips than this are counted in full
SEED = 0


def sign_flip(gap_S: NDArray[np.float64], draws: int = DRAWS, seed: int = SEED) -> tuple[float, bool]:
    """Two-sided p-value of a mean difference of zero, and whether it is exact.

    gap_S: one mean difference a subject, float64 [S]. Under the null each is as likely with either sign. All 2^S flips
    are counted while they are no more than ``draws`` (13 subjects by default); otherwise ``draws`` seeded ones, and
    the p-value is (hits + 1) / (draws + 1) so that it is never 0 (Phipson and Smyth 2010). NaN without subjects.
    """
    count = len(gap_S)
    if not count:
        return math.nan, True
    exact = 2**count <= draws
    if exact:
        signs_DS = 1 - 2 * ((np.arange(2**count)[:, None] >> np.arange(count)) & 1)
    else:
        signs_DS = np.random.default_rng(seed).choice((-1, 1), size=(draws, count))
    flipped_D = np.abs(signs_DS @ gap_S)
    actual = abs(gap_S.sum())
    # Sums of the same numbers in another order differ by rounding.
    hits = int((flipped_D >= actual - 1e-12 * np.abs(gap_S).sum()).sum())
    return (hits / 2**count if exact else (hits + 1) / (draws + 1)), exact


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values of a family, in the same order; NaN stays NaN and does not count."""
    order = sorted((p, n) for n, p in enumerate(p_values) if not math.isnan(p))
    adjusted = [math.nan] * len(p_values)
    largest = 0.0
    for rank, (p, n) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        adjusted[n] = largest
    return adjusted
