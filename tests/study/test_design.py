"""Sides, loads, order and choice of items, by counting."""

import itertools
from collections import Counter

import numpy as np
import pytest

from cgrpo.errors import UserError
from cgrpo.study.create import detectable, items_needed
from cgrpo.study.design import Task, assign_raters, balanced_sides, balanced_tasks, pick_pairs, pick_singles, plan_lists


def tasks(subjects: int, prompts: int, methods: tuple[str, ...] = ("base", "ours"), seeds: int = 1) -> list[Task]:
    made = {method: dict.fromkeys(range(seeds)) for method in methods}
    return [Task(f"s{s}", p, "", made) for s in range(subjects) for p in range(prompts)]  # type: ignore[arg-type]


@pytest.mark.parametrize(("raters", "per_item"), [(8, 3), (5, 2), (7, 7), (3, 1), (16, 8)])
def test_raters_carry_alike_and_meet_alike(raters: int, per_item: int) -> None:
    blocks = assign_raters(200, raters, per_item, np.random.default_rng(0))
    assert all(len(set(block)) == per_item for block in blocks)
    load = Counter(rater for block in blocks for rater in block)
    assert max(load.values()) - min(load.values()) <= 1
    met = Counter(pair for block in blocks for pair in itertools.combinations(block, 2))
    if per_item > 1:
        assert len(met) == raters * (raters - 1) / 2
        assert max(met.values()) - min(met.values()) <= 4


@pytest.mark.parametrize("seed", range(5))
def test_sides_are_balanced_for_every_item_and_every_rater(seed: int) -> None:
    """Also where a rater or an item has an odd number of showings, and where the graph has several pieces."""
    rng = np.random.default_rng(seed)
    edges = [(i, r) for i, block in enumerate(assign_raters(41, 7, 3, rng)) for r in block] + [(99, 50), (98, 51)]
    left = balanced_sides(edges, rng)
    for end in (0, 1):
        lean = Counter()
        for edge, is_left in zip(edges, left, strict=True):
            lean[edge[end]] += 1 if is_left else -1
        assert all(abs(count) <= 1 for count in lean.values())
    assert 0 < sum(left) < len(left)


def test_tasks_are_spread_over_subjects() -> None:
    chosen = balanced_tasks(tasks(7, 10), 25, np.random.default_rng(0))
    count = Counter(task.subject for task in chosen)
    assert set(count.values()) == {3, 4}
    assert len({(task.subject, task.prompt_index) for task in chosen}) == 25


def test_three_methods_meet_equally_often_on_every_subject() -> None:
    """With 6 subjects and 3 pairs of methods a plain rotation would give each subject one pair only."""
    methods = ("a", "b", "c")
    picked = pick_pairs(tasks(6, 6, methods), methods, 54, np.random.default_rng(0))
    pairs = Counter(tuple(method for method, _ in one.arms) for one in picked)
    assert pairs == {("a", "b"): 18, ("a", "c"): 18, ("b", "c"): 18}
    by_subject = Counter((one.task.subject, one.arms[0][0], one.arms[1][0]) for one in picked)
    assert len(by_subject) == 18
    asked = [(one.task.subject, one.task.prompt_index, one.arms) for one in picked]
    assert len(set(asked)) == len(asked)


def test_too_many_items_are_refused_with_the_number_there_is() -> None:
    with pytest.raises(UserError, match="25 subjects with prompts x 1 pairs"):
        pick_pairs(tasks(5, 5), ("base", "ours"), 26, np.random.default_rng(0))
    with pytest.raises(UserError, match="two methods"):
        pick_pairs(tasks(5, 5), ("base",), 2, np.random.default_rng(0))
    with pytest.raises(UserError, match="10 pictures"):
        pick_singles(tasks(5, 1), ("base", "ours"), 11, np.random.default_rng(0))


def test_ratings_have_two_pictures_of_a_prompt() -> None:
    picked = pick_singles(tasks(4, 3, seeds=3), ("base", "ours"), 20, np.random.default_rng(0))
    count = Counter((one.task.subject, one.task.prompt_index) for one in picked)
    assert set(count.values()) == {2}
    assert len({(one.task.subject, one.task.prompt_index, one.arms) for one in picked}) == 20


def test_lists_hold_the_raters_items_and_every_check_once() -> None:
    lists = plan_lists(40, 5, 8, 3, np.random.default_rng(3))
    assert Counter(i for one in lists for i, _ in one if i < 40) == dict.fromkeys(range(40), 3)
    orders = []
    for one in lists:
        places = [n for n, (i, _) in enumerate(one) if i >= 40]
        assert sorted(i for i, _ in one if i >= 40) == [40, 41, 42, 43, 44]
        assert max(np.diff([-1, *places, len(one)])) <= 2 * len(one) / 5 + 1  # spread out
        orders.append(tuple(places))
    assert len(set(orders)) > 1


def test_power_by_simulation() -> None:
    """At the number of items that is said, about 80 % of simulated studies find 55 : 45."""
    assert items_needed(0.55, 1) == 783  # ((1.960 x 0.5 + 0.842 x 0.4975) / 0.05)^2
    items, raters, within = items_needed(0.55, 3), 3, 0.3
    rng = np.random.default_rng(0)
    # Raters copy the item's own vote with probability sqrt(0.3), which correlates two of them by 0.3.
    own_SI1 = rng.random((2000, items, 1)) < 0.55
    other_SIR = rng.random((2000, items, raters)) < 0.55
    vote_SIR = np.where(rng.random((2000, items, raters)) < within**0.5, own_SI1, other_SIR)
    mean_SI = vote_SIR.mean(2)
    z_S = (mean_SI.mean(1) - 0.5) / (mean_SI.std(1, ddof=1) / items**0.5)
    assert (abs(z_S) > 1.96).mean() == pytest.approx(0.8, abs=0.03)
    assert detectable(items, 3) == pytest.approx(0.55, abs=1e-3)
    assert detectable(3, 1) == 1.0
