"""Intervals against numbers worked out by hand, and their coverage."""

import math

import pytest
import torch

from cgrpo.evaluation.statistics import auc, cluster_numbers, contrast, paired_difference

NAN = math.nan


def test_students_interval_by_hand():
    base_N, trained_N = torch.zeros(5), torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    result = paired_difference(base_N, trained_N, torch.arange(5))
    # mean 3, standard deviation sqrt(2.5), t(0.975, 4) = 2.776445 in any table
    half = 2.776445 * math.sqrt(2.5) / math.sqrt(5)
    assert result.difference == pytest.approx(3)
    assert (result.low, result.high) == pytest.approx((3 - half, 3 + half), abs=1e-5)
    assert (result.base, result.trained) == (0, 3)


def test_only_the_difference_counts_not_how_hard_a_task_is():
    base_N = torch.tensor([0.0, 100.0, -50.0])
    result = paired_difference(base_N, base_N + torch.tensor([1.0, 1.5, 0.5]), torch.arange(3))
    half = 4.302653 * 0.5 / math.sqrt(3)  # t(0.975, 2)
    assert (result.low, result.high) == pytest.approx((1 - half, 1 + half), abs=1e-4)


def test_level_sets_the_quantile():
    trained_N = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    result = paired_difference(torch.zeros(5), trained_N, torch.arange(5), level=0.9)
    assert result.high - 3 == pytest.approx(2.131847 * math.sqrt(2.5 / 5), abs=1e-5)  # t(0.95, 4)


def test_clusters_are_the_sample():
    """Repeating every task ten times adds no evidence, and a cluster's size gives it no weight."""
    gaps = torch.tensor([1.0, 2.0, 4.0])
    once = paired_difference(torch.zeros(3), gaps, torch.arange(3))
    often = paired_difference(torch.zeros(30), gaps.repeat_interleave(10), torch.arange(3).repeat_interleave(10))
    assert (often.low, often.high) == pytest.approx((once.low, once.high))
    uneven = paired_difference(torch.zeros(5), torch.tensor([1.0, 1, 1, 2, 4]), torch.tensor([7, 7, 7, 3, 5]))
    assert uneven.difference == pytest.approx(7 / 3)


def test_what_either_arm_could_not_score_is_left_out_of_both():
    base_N = torch.tensor([1.0, NAN, 3.0, 5.0])
    trained_N = torch.tensor([2.0, 9.0, NAN, 7.0])
    result = paired_difference(base_N, trained_N, torch.arange(4))
    assert (result.base, result.trained, result.difference) == (3, 4.5, 1.5)
    whole = paired_difference(base_N[[0, 3]], trained_N[[0, 3]], torch.arange(2))
    assert (result.low, result.high) == (whole.low, whole.high)


@pytest.mark.parametrize("count, clusters", [(1, [0]), (3, [0, 0, 0])])
def test_no_bounds_from_a_single_cluster(count, clusters):
    result = paired_difference(torch.zeros(count), torch.ones(count), torch.tensor(clusters))
    assert result.difference == 1 and math.isnan(result.low) and math.isnan(result.high)


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
