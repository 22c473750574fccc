"""The interval over seeds and subjects together."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from cgrpo.evaluation.statistics import two_level


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
