"""Learning-rate schedules and the average of positions, by hand."""

import math

import pytest
import torch

from cgrpo.algorithm import average_decay, join_average, learning_rate_factor


def factors(count, **settings):
    return [learning_rate_factor(n, count, **settings) for n in range(count)]


def test_schedules_by_hand():
    assert factors(3) == [1, 1, 1]
    assert factors(4, schedule="linear") == pytest.approx([1, 0.75, 0.5, 0.25])
    assert factors(4, schedule="cosine") == pytest.approx([1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2])


def test_a_warm_up_rises_and_the_rest_begins_where_it_ends():
    assert factors(5, warmup=3) == pytest.approx([0.25, 0.5, 0.75, 1, 1])
    assert factors(6, schedule="linear", warmup=2) == pytest.approx([1 / 3, 2 / 3, 1, 0.75, 0.5, 0.25])
    assert factors(2, warmup=5) == pytest.approx([1 / 6, 2 / 6])  # a run that ends while it still rises


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_no_iteration_is_lost(schedule):
    assert all(0 < factor <= 1 for factor in factors(50, schedule=schedule, warmup=7))


def test_the_average_forgets_the_start_and_reaches_its_decay():
    assert [average_decay(n, 0.9) for n in (1, 2, 3, 12, 82, 83, 10_000)] == pytest.approx(
        [0, 1 / 10, 2 / 11, 11 / 20, 0.9, 0.9, 0.9]
    )
    assert average_decay(81, 0.9) < 0.9
    assert [average_decay(n, 0.05) for n in (1, 2, 3)] == [0, 0.05, 0.05]


def test_positions_join_the_average_in_place():
    average = torch.tensor([5.0, -5.0])
    kept = average
    for count, position in enumerate(([1.0, 2.0], [2.0, 4.0], [0.0, 0.0]), 1):
        join_average(average, torch.tensor(position), count, 0.9)
    assert kept is average
    assert average.tolist() == pytest.approx([1.9 * 2 / 11, 3.8 * 2 / 11])  # 1, then 0.1 * 1 + 0.9 * 2, then 2/11 of it


def test_a_constant_position_is_its_own_average():
    average = torch.zeros(3, dtype=torch.float64)
    for count in range(1, 200):
        join_average(average, torch.full((3,), 0.7), count, 0.99)
    torch.testing.assert_close(average, torch.full((3,), 0.7, dtype=torch.float64), atol=1e-7, rtol=0)


def test_values_out_of_range_are_refused():
    for arguments in ((3, 3), (-1, 3), (0, 3, "constant", -1)):
        with pytest.raises(ValueError, match="need 0 <= iteration"):
            learning_rate_factor(*arguments)
    with pytest.raises(ValueError, match="unknown schedule"):
        learning_rate_factor(0, 3, "step")
    for arguments in ((0, 0.9), (1, 1.0), (1, -0.1)):
        with pytest.raises(ValueError, match="need count"):
            average_decay(*arguments)
    with pytest.raises(ValueError, match="one shape"):
        join_average(torch.zeros(2), torch.zeros(3), 1, 0.9)
