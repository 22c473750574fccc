"""The comparison's statistics against numbers worked out by hand, enumeration, and simulation."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from cgrpo.errors import UserError
from cgrpo.evaluation.benchmark.dreambench import official_list
from cgrpo.evaluation.statistics.comparison import compare_methods
from cgrpo.evaluation.statistics.tradeoff import hypervolume, pareto_front
from cgrpo.scores import ScoreRow
from cgrpo.statistics import holm, sign_flip

OBJECTS = ("backpack", "can", "clock")


def row(method, subject, index, score, *, seed=1, metric="dino", protocol="one", subject_kind="", prompt_kind=""):
    prompt = None if index is None else f"prompt {index}"
    picture = f"{subject}/{index}_{seed}.png"
    return ScoreRow(
        method, subject, index, prompt, seed, metric, protocol, score, picture, None, subject_kind, prompt_kind
    )


def find(found, **keys):
    (one,) = [d for d in found if all(getattr(d, key) == value for key, value in keys.items())]
    return one


def arms(gaps, **keys):
    """Baseline 0.5 and a method above it by ``gaps`` {subject: [by prompt]}."""
    rows = []
    for subject, by_prompt in gaps.items():
        for index, gap in enumerate(by_prompt):
            rows += [row("base", subject, index, 0.5, **keys), row("new", subject, index, 0.5 + gap, **keys)]
    return rows


def test_of_one_subject_the_prompts_are_the_sample():
    alone, several = arms({"can": [0.1, 0.2, 0.3]}), arms({"can": [0.1, 0.2], "clock": [0.1, 0.3]})
    comparison = compare_methods(alone)
    (caution,) = comparison.cautions
    assert caution.startswith("All pictures show one subject, can") and compare_methods(several).cautions == []
    new = find(comparison.differences, group="all")
    half = 4.302653 * 0.1 / math.sqrt(3)  # t(0.975, 2), standard deviation 0.1
    assert (comparison.unit, new.clusters, new.p) == ("prompts", 3, 0.25)
    assert (new.low, new.high) == pytest.approx((0.2 - half, 0.2 + half), abs=1e-5)


# -- pairs -----------------------------------------------------------------------------------------


def answers(comparison):
    """What a comparison concludes over all prompts."""
    (new,) = comparison.tested()
    return [new.pairs, new.difference, new.low, new.high, new.items_low, new.items_high, new.p]


PROMPTS = {"backpack": [0.1, 0.2, 0.05], "can": [0.3, 0.1, 0.2], "clock": [0.0, 0.4, 0.1]}


@pytest.mark.parametrize(
    "change",
    [
        lambda row, n: replace(row, prompt_index=row.prompt_index + 1),  # counted from 1
        lambda row, n: replace(row, prompt_index=2 - row.prompt_index),  # listed the other way round
        lambda row, n: replace(row, prompt_index=None),
        lambda row, n: replace(row, prompt=f" {row.prompt.replace(' ', '  ')} "),
        lambda row, n: replace(row, seed=3407 + n),
        lambda row, n: replace(row, seed=None, picture=f"other/{n}.jpg"),
        lambda row, n: replace(row, subject_kind="live"),
        lambda row, n: replace(row, prompt_kind="background"),
    ],
)
def test_pairs_are_told_by_subject_and_prompts_text(change):
    """Whatever numbers, seeds, kinds and names another system gives its pictures; and in whatever order."""
    rows = arms(PROMPTS)
    expected = answers(compare_methods(rows))
    changed = [row if row.method == "base" else change(row, n) for n, row in enumerate(rows)]
    assert compare_methods(rows).cautions == []
    for some in (changed, changed[::-1]):
        comparison = compare_methods(some, "base")
        assert answers(comparison) == pytest.approx(expected) and comparison.cautions == []


def test_a_prompt_that_stands_there_twice_is_two_pairs():
    rows = [replace(row, prompt="a toy") for row in arms({"backpack": [0.1, 0.3], "can": [0.2, 0.4]})]
    assert find(compare_methods(rows).differences, group="all").pairs == 4
    renumbered = [row if row.method == "base" else replace(row, prompt_index=row.prompt_index + 5) for row in rows]
    assert answers(compare_methods(renumbered)) == answers(compare_methods(rows))


@pytest.mark.parametrize(
    ("change", "example"),
    [
        (lambda row: replace(row, subject="cat"), "cat, 'prompt 0'"),
        (lambda row: replace(row, prompt=f"red {row.prompt_index}"), "can, 'red 0'"),
    ],
)
def test_nothing_in_common_is_said(change, example):
    rows = [row if row.method == "base" else change(row) for row in arms({"can": [0.1] * 6})]
    comparison = compare_methods(rows)
    assert comparison.differences == [] and comparison.subjects == []
    caution = next(text for text in comparison.cautions if "in common" in text)
    assert caution.startswith("dino (one): new and base have 0 of 12 pairs")
    assert caution.endswith(f"so they are not compared: only new has {example}; only base has can, 'prompt 0'.")


def test_what_is_compared_in_part_is_said():
    rows = [row for row in arms(PROMPTS) if row.method == "base" or row.subject != "clock"]
    comparison = compare_methods([*rows, row("new", "clock", 7, 0.9)])
    assert find(comparison.differences, group="all").pairs == 6
    (caution,) = comparison.cautions
    assert "have 6 of 10 pairs" in caution and "differences are over these alone" in caution


@pytest.mark.parametrize("size", [1e-300, 1e-12, 1.0, 1e6, 1e99])
def test_scores_of_any_size_are_compared(size):
    rows = [replace(row, score=row.score * size) for row in arms(PROMPTS)]
    plain, scaled = (find(compare_methods(some).differences, group="all") for some in (arms(PROMPTS), rows))
    for name in ("difference", "low", "high", "items_low", "items_high"):
        assert getattr(scaled, name) == pytest.approx(getattr(plain, name) * size, rel=1e-9)
    assert scaled.p == plain.p
    with pytest.raises(ValueError, match="score 1e.308 is no number up to"):
        row("base", "can", 0, 1e308)


# -- tests of significance -------------------------------------------------------------------------


def test_sign_flips_of_a_tiny_case_by_enumeration():
    # |+-1 +-2 +-3| takes 6, 4, 2, 0, 0, 2, 4, 6: at least 6 twice, at least 4 four times, of 8
    assert sign_flip(np.array([1.0, 2.0, 3.0])) == (2 / 8, True)
    assert sign_flip(np.array([-1.0, 2.0, 3.0])) == (4 / 8, True)
    assert sign_flip(np.zeros(3)) == (1, True)
    assert math.isnan(sign_flip(np.empty(0))[0])


def test_sign_flips_equal_a_plain_enumeration_and_the_seeded_draws_come_near():
    gap_S = np.random.default_rng(3).normal(0.4, 1, 9)
    sums = [abs(float(np.dot(signs, gap_S))) for signs in itertools.product((1, -1), repeat=9)]
    expected = sum(value >= abs(gap_S.sum()) - 1e-9 for value in sums) / 512
    assert sign_flip(gap_S) == (expected, True)
    drawn, exact = sign_flip(gap_S, flips=500)
    assert not exact and 0.02 < expected < 0.9
    assert drawn == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 500))
    assert sign_flip(gap_S, flips=500)[0] == drawn
    assert sign_flip(np.ones(30))[0] == 1 / 10_001  # never 0


def test_sign_flips_of_darwins_maize_are_fishers():
    """The Design of Experiments (1935), section 21: 15 pairs of plants, differences in eighths of an inch sum to 314.

    Of the 32,768 arrangements 863 have a sum as large, and as many one as small: 5.267 % together.
    """
    gap_S = np.array([49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48], dtype=float)
    assert gap_S.sum() == 314
    assert sign_flip(gap_S, flips=2**15) == (2 * 863 / 32768, True)
    assert sign_flip(gap_S)[0] == pytest.approx(0.05267, abs=4 * math.sqrt(0.05267 * 0.94733 / 10_000))


def test_the_interval_of_students_sleep_data():
    """Student (1908), as in R's t.test: mean 1.58, 95 % interval 0.7001142 to 2.4598858, here one pair a subject."""
    gaps = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
    new = find(compare_methods(arms({f"s{n}": [gap] for n, gap in enumerate(gaps)}), "base").differences, group="all")
    assert new.difference == pytest.approx(1.58)
    assert (new.low, new.high) == pytest.approx((0.7001142, 2.4598858), abs=1e-6)


def test_sign_flips_are_level_without_an_effect():
    rng = np.random.default_rng(0)
    p_values = [sign_flip(rng.normal(0, 1, 8))[0] for _ in range(600)]
    assert np.mean(np.array(p_values) <= 0.05) == pytest.approx(0.047, abs=0.03)  # 12 of 256 is the largest level below


def test_holm_by_hand():
    # sorted .01 x 4 = .04, .02 x 3 = .06, .03 x 2 = .06, .04 x 1 = .04 but no less than .06
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []
    alone = holm([math.nan, 0.02])
    assert math.isnan(alone[0]) and alone[1] == 0.02


# -- differences -----------------------------------------------------------------------------------


def test_headline_interval_by_hand_and_the_narrower_one_over_items():
    gaps = {"backpack": [0.1, 0.1], "can": [0.2, 0.2], "clock": [0.3, 0.3]}
    new = find(compare_methods(arms(gaps), "base").differences, group="all")
    half = 4.302653 * 0.1 / math.sqrt(3)  # t(0.975, 2), standard deviation 0.1
    assert new.difference == pytest.approx(0.2)
    assert (new.low, new.high) == pytest.approx((0.2 - half, 0.2 + half), abs=1e-5)
    half = 2.570582 * math.sqrt(0.04 / 5) / math.sqrt(6)  # t(0.975, 5), variance (4 x 0.01) / 5
    assert (new.items_low, new.items_high) == pytest.approx((0.2 - half, 0.2 + half), abs=1e-5)
    assert (new.clusters, new.pairs, new.improved, new.p, new.exact) == (3, 6, 1, 0.25, True)


def test_seeds_are_averaged_first_and_give_a_pair_no_weight():
    rows = arms({"backpack": [0.1], "can": [0.3]})
    rows += [row("new", "backpack", 0, 0.5 + gap, seed=seed) for seed, gap in ((2, 0.2), (3, 0.3))]
    comparison = compare_methods(rows, "base")
    assert find(comparison.differences, group="all").difference == pytest.approx((0.2 + 0.3) / 2)
    mean = find(comparison.means, method="new", group="all")
    assert (mean.pairs, mean.pictures) == (2, 4)
    assert mean.seed_deviation == pytest.approx(0.1)  # of 0.6, 0.7, 0.8


def test_a_picture_without_a_score_is_counted_and_its_pair_left_out_of_both():
    rows = [*arms({"backpack": [0.1, 0.3], "can": [0.1]}), row("base", "can", 1, 0.9), row("new", "can", 1, None)]
    comparison = compare_methods(rows, "base")
    new = find(comparison.differences, group="all")
    assert (new.pairs, new.difference) == (3, pytest.approx((0.2 + 0.1) / 2))
    assert find(comparison.means, method="new", group="all").unscored == 1
    assert comparison.cautions == ["1 of 4 pictures of new have no score of dino (one)."]


def test_holm_runs_over_columns_and_methods_and_leaves_groups_alone():
    gaps = {"backpack": [0.1], "can": [0.2], "clock": [0.3]}
    rows = [*arms(gaps), *arms(gaps, metric="clip", protocol="prompt")]
    rows += [row("other", subject, 0, 0.4, metric=m, protocol=p) for subject in OBJECTS for m, p in (("dino", "one"),)]
    tested = [d for d in compare_methods(rows, "base").differences if not math.isnan(d.p)]
    assert [(d.method, d.column, d.p, d.p_holm) for d in tested] == [
        ("new", "dino (one)", 0.25, 0.75),
        ("other", "dino (one)", 0.25, 0.75),
        ("new", "clip", 0.25, 0.75),
    ]
    assert {d.group for d in tested} == {"all"}


def test_property_prompts_and_live_subjects_apart():
    listed = official_list(subjects=["can", "cat"])
    rows = []
    for item in listed:
        gap = 0.1 + 0.4 * (item.prompt_index >= 20) + 0.2 * (item.subject == "cat")
        kinds = {"subject_kind": item.subject_kind, "prompt_kind": item.prompt_kind}
        rows += [
            row("base", item.subject, item.prompt_index, 0.0, **kinds),
            row("new", item.subject, item.prompt_index, gap, **kinds),
        ]
    found = {d.group: (d.pairs, round(d.difference, 6)) for d in compare_methods(rows, "base").differences}
    assert found == {
        "all": (50, 0.28),
        "without property": (40, 0.2),
        "property": (10, 0.6),
        "background": (20, 0.2),
        "context": (10, 0.1),
        "accessory": (10, 0.3),
        "live": (25, 0.38),
        "object": (25, 0.18),
    }


def test_one_kind_of_subjects_and_of_prompts_makes_no_groups():
    rows = [
        row(m, s, 0, 0.5, subject_kind="object", prompt_kind="background") for m in ("base", "new") for s in OBJECTS
    ]
    assert compare_methods(rows).groups() == ["all"]


def test_the_baseline_is_base_or_the_first_and_never_a_reference_row():
    rows = [row("copy-paste", "can", 0, 1.0), row("b", "can", 0, 0.5), row("a", "can", 0, 0.4)]
    assert compare_methods(rows).baseline == "b"
    assert compare_methods([*rows, row("base", "can", 0, 0.3)]).methods == ["base", "b", "a"]
    assert compare_methods(rows, "a").methods == ["a", "b"]
    assert compare_methods(rows).references == ["copy-paste"]
    with pytest.raises(UserError, match=r"baseline 'copy-paste' has no scores; choose one of b, a"):
        compare_methods(rows, "copy-paste")
    with pytest.raises(UserError, match="no scores of any method"):
        compare_methods(rows[:1])


def test_identity_above_real_photographs_is_a_caution():
    rows = [row("base", "can", 0, 0.9), row("copy-paste", "can", 0, 1.0), row("real-vs-real", "can", None, 0.7)]
    (caution,) = compare_methods(rows).cautions
    assert "base is above the level of real photographs in dino (one) (0.900 against 0.700" in caution


def test_nan_is_null_in_plain_values():
    table = compare_methods(arms({"can": [0.1]}), "base").as_dict()
    assert table["differences"][0]["low"] is None and table["differences"][0]["difference"] == pytest.approx(0.1)


def test_interval_over_subjects_covers_the_truth_95_times_in_100_and_the_one_over_items_does_not():
    """Effects differ between subjects (sd 0.03) and between pairs (sd 0.05), as on DreamBench, with fewer prompts."""
    rng = np.random.default_rng(0)
    subjects = [item.subject for item in official_list() if item.prompt_index == 0][:15]
    runs, truth, covered, items = 300, 0.02, 0, 0
    for _ in range(runs):
        effects = truth + rng.normal(0, 0.03, 15)[:, None] + rng.normal(0, 0.05, (15, 6))
        new = find(compare_methods(arms(dict(zip(subjects, effects, strict=True))), "base").differences, group="all")
        covered += new.low <= truth <= new.high
        items += new.items_low <= truth <= new.items_high
    # The binomial's standard deviation is 0.013.
    assert covered / runs == pytest.approx(0.95, abs=0.035), covered / runs
    assert items / runs < 0.85, items / runs


# -- trade-off -------------------------------------------------------------------------------------


def test_hypervolume_by_hand():
    # rectangles 3 x 1, 2 x 2 and 1 x 3 from the origin: a staircase of 3 + 2 + 1
    assert hypervolume([(1, 3), (3, 1), (2, 2)], (0, 0)) == 6
    assert hypervolume([(3, 1), (2, 1), (1, 1)], (0, 0)) == 3  # the beaten add nothing
    assert hypervolume([(3, 3), (-1, 9), (9, -1)], (1, 1)) == 4
    assert hypervolume([(2, 2), (2, 2), (2, 1)], (0, 0)) == 4
    assert hypervolume([], (0, 0)) == 0


def test_pareto_front_by_hand():
    points = {"a": (1.0, 3.0), "b": (2.0, 2.0), "c": (1.5, 1.5), "d": (2.0, 1.0), "e": (3.0, 0.5)}
    assert pareto_front(points) == ["e", "b", "a"]


def test_tradeoff_of_two_methods_by_hand():
    rows = []
    for subject in OBJECTS:
        for name, identity, prompt in (
            ("base", 0.6, 0.25),
            ("new", 0.7, 0.30),
            ("copy-paste", 1.0, 0.20),
            ("prompt-only", 0.4, 0.35),
        ):
            rows += [row(name, subject, 0, identity), row(name, subject, 0, prompt, metric="clip", protocol="prompt")]
        rows.append(row("real-vs-real", subject, None, 0.75))
    (panel,) = compare_methods(rows).tradeoffs
    assert panel.origin == pytest.approx((0.4, 0.2))
    assert panel.origin_rule == "identity of prompt-only, prompt score of copy-paste"
    assert panel.ceiling == pytest.approx(0.75)
    assert panel.front == ["new"]
    assert panel.areas == pytest.approx({"base": 0.2 * 0.05, "new": 0.3 * 0.1})
    assert panel.hypervolume == pytest.approx(0.03)
    assert (panel.low, panel.high) == pytest.approx((0.03, 0.03))  # subjects are all alike
    assert panel.dominance == {"new": 1}
    assert set(panel.points) == {"base", "new", "copy-paste", "prompt-only"}


def test_the_reference_point_is_the_worst_shown_without_the_reference_rows():
    rows = [row("base", "can", 0, 0.6), row("new", "can", 0, 0.7)]
    rows += [row(m, "can", 0, s, metric="clip", protocol="prompt") for m, s in (("base", 0.3), ("new", 0.2))]
    (panel,) = compare_methods(rows).tradeoffs
    assert panel.origin == (0.6, 0.2) and panel.hypervolume == 0
    assert panel.front == ["new", "base"] and math.isnan(panel.low)
