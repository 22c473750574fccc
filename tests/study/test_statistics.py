"""Textbook tables, closed forms, and parameters that are found again."""

import math

import numpy as np
import pytest
from scipy import stats

from cgrpo.statistics import sign_flip
from cgrpo.study.manifest import TIE
from cgrpo.study.statistics.comparisons import LOSS, WIN, Vote, davidson, shares, side_bias
from cgrpo.study.statistics.intervals import FEWEST, percentiles, rate_interval, typical_values
from cgrpo.study.statistics.raters import krippendorff_alpha, reliability

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
    assert (found.items_won, found.items_lost) == (3, 2)
    # Surpluses of 3, 2, -1, -3, 1 over items: of 32 sign flips all but 4 have a sum of 2 or more, in size.
    assert found.win_rate_items.p == 28 / 32 and math.isnan(found.over_items[WIN].low)
    won = shares(votes("w w w w w w t"), "identity", "base", "ours")
    assert won is not None and won.win_rate_items.p == pytest.approx(2 * 0.5**6)  # the tied item does not count
    assert won.over_items[WIN].low < 6 / 7 < won.over_items[WIN].high
    assert shares([], "identity", "base", "ours") is None


@pytest.mark.parametrize("subjects", range(1, 11))
@pytest.mark.parametrize("votes", [1, 30], ids=["single votes", "whole subjects"])
def test_a_coin_makes_at_most_one_study_of_twenty_sure(subjects: int, votes: int) -> None:
    """All outcomes counted; a coin decides each subject, by one vote or by thirty that agree. 2 and 5 clusters have no
    verdict, whatever they say."""
    outcome_FS = np.arange(2**subjects)[:, None] >> np.arange(subjects) & 1
    votes_S, sure = np.full(subjects, float(votes)), 0
    for outcome_S in outcome_FS:
        found = rate_interval(votes * outcome_S, votes * (1 - outcome_S), votes_S)
        sure += found.above(0.5) or found.below(0.5)
    assert sure / len(outcome_FS) <= 0.05
    assert (sure > 0) == (subjects >= FEWEST)


def test_the_verdict_and_the_test_agree() -> None:
    rng = np.random.default_rng(0)
    for subjects in (2, 5, 6, 9, 13, 14, 30):
        for lean in (0.5, 0.6, 0.8):
            votes_S = rng.integers(1, 7, subjects).astype(float)
            wins_S = rng.binomial(votes_S.astype(int), lean).astype(float)
            losses_S = np.floor(rng.uniform(0, 1, subjects) * (votes_S - wins_S + 1))
            found = rate_interval(wins_S, losses_S, votes_S)
            assert (found.p <= 0.05) == (found.above(0.5) or found.below(0.5))
            if subjects <= 13:
                assert found.p >= sign_flip((wins_S - losses_S) / 2)[0] - 1e-12


def test_votes_that_all_agree_leave_an_interval_with_a_width() -> None:
    """None below six; six wins as by hand, from 7/8 - 1/8 +- 1.96 sqrt((1 - 0.75^2) / 8)."""
    found = shares(votes("w w w"), "identity", "base", "ours")
    assert found is not None and math.isnan(found.win_rate_items.low) and found.win_rate_items.p == 0.25
    six = rate_interval(np.ones(6), np.zeros(6), np.ones(6))
    assert six.low == pytest.approx(0.5 + 0.375 - 0.98 * (0.4375 / 8) ** 0.5, abs=1e-4) and six.high == 1
    ties = rate_interval(np.zeros(8), np.zeros(8), np.full(8, 3.0))
    assert ties.low < 0.45 and ties.high > 0.55 and ties.p == 1


def test_intervals_of_means_are_nearly_students() -> None:
    """Typical values without an assumption of normality, and percentiles that keep the skew."""
    rng = np.random.default_rng(1)
    widths = []
    for _ in range(100):
        values_C = rng.normal(size=12)
        low, high = stats.t.interval(0.95, 11, values_C.mean(), stats.sem(values_C))
        found = typical_values(values_C, np.ones(12))
        assert found.low < values_C.mean() < found.high
        widths.append((found.high - found.low) / (high - low))
    assert np.mean(widths) == pytest.approx(1, abs=0.03)
    drawn_DC = rng.multinomial(12, np.full(12, 1 / 12), size=9999)
    found = percentiles(drawn_DC @ values_C / 12, 12)
    assert found.high - found.low == pytest.approx(high - low, rel=0.06)


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
