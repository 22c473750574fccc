"""Intervals against numbers worked out by hand, and their coverage."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from cgrpo.evaluation.statistics.paired import auc, cluster_numbers, contrast, paired_difference, two_level

NAN = math.nan


HALF = 2.776445 * math.sqrt(2.5 / 5)  # t(0.975, 4) of any table, standard deviation of 1 .. 5


@pytest.mark.parametrize(
    ("base", "trained", "clusters", "level", "difference", "half"),
    [
        ([0.0] * 5, [1.0, 2, 3, 4, 5], range(5), 0.95, 3, HALF),
        ([0.0] * 5, [1.0, 2, 3, 4, 5], range(5), 0.9, 3, 2.131847 * math.sqrt(2.5 / 5)),  # t(0.95, 4)
        # Only the difference counts, not how hard a task is: t(0.975, 2), standard deviation 0.5.
        ([0.0, 100, -50], [1.0, 101.5, -49.5], range(3), 0.95, 1, 4.302653 * 0.5 / math.sqrt(3)),
        # Clusters are the sample: repeating every task adds no evidence, a cluster's size gives it no weight.
        ([0.0] * 10, [1.0, 1, 2, 2, 3, 3, 4, 4, 5, 5], [0, 0, 1, 1, 2, 2, 3, 3, 4, 4], 0.95, 3, HALF),
        ([0.0] * 7, [1.0, 1, 1, 2, 3, 4, 5], [7, 7, 7, 3, 5, 1, 2], 0.95, 3, HALF),
        # What either arm could not score is left out of both.
        ([0.0, NAN, 0, 0, 0, 0, 0], [1.0, 9, NAN, 2, 3, 4, 5], range(7), 0.95, 3, HALF),
        # A single cluster has no bounds.
        ([0.0], [1.0], [0], 0.95, 1, NAN),
        ([0.0] * 3, [1.0] * 3, [0, 0, 0], 0.95, 1, NAN),
    ],
)
def test_students_interval_by_hand(base, trained, clusters, level, difference, half):
    base_N, trained_N = torch.tensor(base), torch.tensor(trained)
    result = paired_difference(base_N, trained_N, torch.tensor(list(clusters)), level)
    assert result.difference == pytest.approx(difference)
    bounds = (difference - half, difference + half)
    assert (result.low, result.high) == pytest.approx(bounds, abs=1e-5, nan_ok=True)
    scored_N = ~(base_N + trained_N).isnan()
    means = (base_N[scored_N].mean().item(), trained_N[scored_N].mean().item())
    assert (result.base, result.trained) == pytest.approx(means)


def test_nothing_scored_is_nan_throughout():
    for tensor in (torch.empty(0), torch.full((3,), NAN)):
        result = paired_difference(tensor, tensor, torch.arange(len(tensor)))
        assert all(math.isnan(v) for v in (result.base, result.trained, result.difference, result.low, result.high))


def test_interval_covers_the_truth_95_times_in_100():
    """Tasks of one subject share half their variance; an interval over tasks instead would cover far less."""
    rng = torch.Generator().manual_seed(0)
    runs, subjects, tasks, truth = 1000, 12, 6, 0.3
    cluster_N = torch.arange(subjects).repeat_interleave(tasks)
    covered = naive = 0
    for _ in range(runs):
        shared_N = torch.randn(subjects, generator=rng)[cluster_N]
        gap_N = truth + shared_N + torch.randn(len(cluster_N), generator=rng)
        base_N = torch.randn(len(cluster_N), generator=rng)
        result = paired_difference(base_N, base_N + gap_N, cluster_N)
        covered += result.low <= truth <= result.high
        naive += abs(gap_N.mean() - truth) < 1.99 * gap_N.std() / len(gap_N) ** 0.5
    # The binomial's standard deviation is 0.007.
    assert covered / runs == pytest.approx(0.95, abs=0.025)
    assert naive / runs < 0.8


def test_auc_by_hand():
    # pairs: 3 > 1, 3 > 2, 2 > 1, 2 = 2 -> (3 + 0.5) / 4
    assert auc(torch.tensor([3.0, 2.0]), torch.tensor([1.0, 2.0])) == 0.875
    assert auc(torch.tensor([1.0]), torch.tensor([2.0])) == 0
    assert auc(torch.ones(4), torch.ones(3)) == 0.5


def test_a_contrast_takes_whatever_is_the_sample():
    """The same cases: 3 raters of 2 each, whose mean gains are 1, 2 and -0.5, or 6 cases on their own."""
    gap_N = torch.tensor([1.0, 1.0, 1.0, 3.0, -1.0, 0.0], dtype=torch.float64)
    raters_N = cluster_numbers(["ann", "ann", "bob", "bob", "eve", "eve"])
    assert raters_N.tolist() == [0, 0, 1, 1, 2, 2]
    by_rater = contrast(0 * gap_N, gap_N, raters_N, test=True)
    assert (by_rater.clusters, by_rater.cases, by_rater.improved) == (3, 6, pytest.approx(2 / 3))
    # |+-1 +-2 +-0.5| is at least 2.5 in 4 of the 8 flips
    assert (by_rater.p, by_rater.exact) == (4 / 8, True)
    by_case = contrast(0 * gap_N, gap_N, torch.arange(6), test=False)
    assert by_case.over_clusters == by_case.over_cases == by_rater.over_cases and math.isnan(by_case.p)
    assert by_rater.over_clusters.low < by_rater.over_cases.low
    with pytest.raises(ValueError, match="both arms have a score"):
        contrast(gap_N, gap_N * NAN, raters_N, test=False)


def test_by_hand() -> None:
    """[[1, 3], [2, 6]]: mean 3. Rows 2 and 4: MS = 2 (1 + 1) / 1 = 4. Columns 1.5 and 4.5: MS = 2 (2.25 + 2.25) = 9.
    Rest +-0.5: MS = 4 * 0.25 / 1 = 1. Variance (4 + 9 - 1) / 4 = 3, freedom 144 / (16 + 81 + 1) = 1.469."""
    found = two_level(torch.tensor([[1.0, 3.0], [2.0, 6.0]]))
    half = stats.t.ppf(0.975, 144 / 98) * math.sqrt(3)
    assert (found.mean, found.seeds, found.subjects) == (3.0, 2, 2)
    assert (found.low, found.high) == (pytest.approx(3 - half), pytest.approx(3 + half))


def test_one_seed_is_students_interval_over_subjects() -> None:
    found = two_level(torch.tensor([[1.0, 2.0, 6.0]]))
    half = stats.t.ppf(0.975, 2) * math.sqrt(7 / 3)  # variance of 1, 2, 6 is 7
    assert (found.low, found.high) == (pytest.approx(3 - half), pytest.approx(3 + half))


def test_its_p_value_is_that_of_the_interval() -> None:
    gap_SJ = torch.randn(3, 12, generator=torch.Generator().manual_seed(2)) + 0.4
    found = two_level(gap_SJ)
    shifted = two_level(gap_SJ - found.low)  # its interval begins at 0
    assert 0 < found.p < 1 and shifted.p == pytest.approx(0.05)
    assert two_level(torch.zeros(2, 3)).p == 1 and two_level(torch.ones(2, 3)).p == 0
    assert math.isnan(two_level(torch.ones(3, 1)).p)


def test_its_degrees_of_freedom_are_no_fewer_than_the_seeds() -> None:
    """Rows 0 and columns 0: all is rest, so Satterthwaite's would be below 1 for a variance of the rest's sign."""
    gap_SJ = torch.tensor([[1.0, 0.0, -1.0], [-1.0, 1.0, 0.0], [0.0, -1.0, 1.0]]) + torch.tensor([[0.1], [0.0], [-0.1]])
    found = two_level(gap_SJ)
    by_seed = 3 * (2 * 0.1**2) / 2
    assert found.high == pytest.approx(stats.t.ppf(0.975, 2) * math.sqrt(by_seed / 9))


def test_seeds_that_differ_widen_it_and_one_subject_says_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    gap_SJ = torch.randn(3, 40, generator=generator)
    apart = gap_SJ + torch.tensor([[-1.0], [0.0], [1.0]])
    width = lambda found: found.high - found.low  # noqa: E731
    assert width(two_level(apart)) > 3 * width(two_level(gap_SJ))
    assert math.isnan(two_level(torch.ones(3, 1)).low)


@pytest.mark.parametrize("seed_share", [0.0, 0.5])
def test_coverage(seed_share: float) -> None:
    """300 draws of 3 seeds and 20 subjects: a nominal 95 % interval holds the truth in at least 90 % of them."""
    generator = torch.Generator().manual_seed(1)
    held = 0
    for _ in range(300):
        seeds, subjects = (torch.randn(n, generator=generator) for n in (3, 20))
        gap_SJ = seed_share * seeds[:, None] + 0.5 * subjects + 0.5 * torch.randn(3, 20, generator=generator)
        found = two_level(gap_SJ)
        held += found.low <= 0 <= found.high
    assert 0.9 <= held / 300 <= 1.0
