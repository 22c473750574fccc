"""Textbook tables, closed forms, and parameters that are found again."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from cgrpo.study.manifest import TIE
from cgrpo.study.statistics.comparisons import LOSS, WIN, Vote, davidson, percentiles, resampled, shares, side_bias
from cgrpo.study.statistics.raters import krippendorff_alpha
from cgrpo.study.statistics.ratings import reliability

# Krippendorff's own example, 4 observers and 12 units (Computing Krippendorff's Alpha-Reliability, 2011).
UNITS = [
    [1, 1, 1], [2, 2, 3, 2], [3, 3, 3, 3], [3, 3, 3, 3], [2, 2, 2, 2], [1, 2, 3, 4],
    [4, 4, 4, 4], [1, 1, 2, 1], [2, 2, 2, 2], [5, 5, 5], [1, 1], [3],
]  # fmt: skip


def votes(outcomes: str, question: str = "identity", pair: tuple[str, str] = ("base", "ours")) -> list[Vote]:
    """An item a word of w, t, l: one vote a letter; subjects of two items each."""
    named = {"w": WIN, "t": TIE, "l": LOSS}
    return [
        Vote(r, f"{pair}{i}", f"s{i // 2}", question, *pair, named[letter], None if letter == "t" else letter == "w")
        for i, word in enumerate(outcomes.split())
        for r, letter in enumerate(word)
    ]


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_of_the_textbook_table(level: str, alpha: float) -> None:
    assert krippendorff_alpha(UNITS, level) == pytest.approx(alpha, abs=5e-4)  # type: ignore[arg-type]


def test_alpha_where_it_is_not_defined() -> None:
    assert math.isnan(krippendorff_alpha([[1, 1], [1, 1]], "nominal"))
    assert math.isnan(krippendorff_alpha([[1], [2], []], "ordinal"))
    assert krippendorff_alpha([[1, 1], [2, 2]], "nominal") == 1.0


def test_shares_by_hand() -> None:
    found = shares(votes("www wwt ttl lll wwl"), "identity", "base", "ours")
    assert found is not None
    assert found.counts == {WIN: 7, TIE: 3, LOSS: 5}
    assert found.win_rate == pytest.approx(8.5 / 15)
    assert (found.items, found.subjects) == (5, 3)
    assert (found.items_won, found.items_lost) == (3, 2) and found.sign_p == 1.0
    assert found.over_items[WIN].low < 7 / 15 < found.over_items[WIN].high
    won = shares(votes("w w w w w w t"), "identity", "base", "ours")
    assert won is not None and won.sign_p == pytest.approx(2 * 0.5**6)  # the tied item does not count
    assert shares([], "identity", "base", "ours") is None


def test_one_item_has_no_interval() -> None:
    found = shares(votes("wtl"), "identity", "base", "ours")
    assert found is not None and math.isnan(found.win_rate_items.low)


def test_intervals_of_means_are_students() -> None:
    """As wide as t's, though the bootstrap's variance has n where t's has n - 1; the percentiles keep the skew."""
    values_C = np.random.default_rng(1).normal(size=12)
    found = percentiles(resampled(12) @ values_C / 12, 12)
    low, high = stats.t.interval(0.95, 11, values_C.mean(), stats.sem(values_C))
    assert found.high - found.low == pytest.approx(high - low, rel=0.04)
    assert found.low < values_C.mean() < found.high


def test_side_bias() -> None:
    found = side_bias(votes("wwwl tt"))
    assert (found["chosen"], found["left"]) == (4, 0.75)
    assert found["low"] == pytest.approx(0.194, abs=1e-3)  # Clopper and Pearson
    assert math.isnan(side_bias(votes("tt"))["left"])


def test_davidson_finds_its_parameters_again() -> None:
    strengths, nu, rng = {"a": -0.6, "b": 0.1, "c": 0.5}, 0.7, np.random.default_rng(0)
    cast = []
    for pair in (("a", "b"), ("a", "c"), ("b", "c")):
        other, one = (math.exp(strengths[name]) for name in pair)
        p = np.array([one, nu * math.sqrt(one * other), other])
        words = rng.choice(list("wtl"), p=p / p.sum(), size=(300, 3))
        cast += votes(" ".join("".join(word) for word in words), pair=pair)
    found = davidson(cast, "identity", ["a", "b", "c"], draws=40)
    assert found is not None
    for name, strength in strengths.items():
        assert found.strengths[name] == pytest.approx(strength, abs=0.14)
        assert found.intervals[name].low < found.strengths[name] < found.intervals[name].high
    assert found.tie == pytest.approx(math.log(nu), abs=0.15)
    always = davidson(votes("www www"), "identity", ["base", "ours"], draws=2)
    assert always is not None and math.isfinite(always.strengths["ours"])
    assert davidson([], "identity", ["a", "b"]) is None


def test_reliability_of_means() -> None:
    """True variance 1, noise 2, three raters: one rater 1/3, their mean 1/(1 + 2/3)."""
    rng = np.random.default_rng(0)
    units = rng.normal(size=(4000, 1)) + rng.normal(0, 2**0.5, size=(4000, 3))
    mean, one = reliability(list(units))
    assert mean == pytest.approx(0.6, abs=0.03) and one == pytest.approx(1 / 3, abs=0.03)
    assert all(math.isnan(value) for value in reliability([[1.0], [2.0]]))
