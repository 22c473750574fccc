"""Which steps are stochastic, which are trained, and that a seed alone decides."""

import pytest
import torch

from cgrpo.algorithm import Window, all_steps, random_fraction, sliding_window, window_start


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_all_steps_but_the_last():
    window = all_steps(5, 3)
    assert window.stochastic_K.tolist() == [True] * 4 + [False]
    assert window.trained_NK.tolist() == [[True] * 4 + [False]] * 3


@pytest.mark.parametrize(
    ("T", "fraction", "count"), [(25, 0.6, 14), (10, 0.6, 5), (2, 0.6, 1), (25, 0.01, 1), (5, 1, 4)]
)
def test_random_fraction_counts_as_the_release(T, fraction, count):
    window = random_fraction(T, 8, fraction, generators=generators(*range(8)))
    assert window.stochastic_K.tolist() == [True] * (T - 1) + [False]
    assert window.trained_NK.sum(dim=1).tolist() == [count] * 8
    assert not window.trained_NK[:, -1].any()


def test_every_step_but_the_last_is_drawn_equally_often():
    share_K = random_fraction(10, 3000, 0.6, generators=generators(*range(3000))).trained_NK.double().mean(dim=0)
    torch.testing.assert_close(share_K[:-1], torch.full((9,), 5 / 9, dtype=torch.float64), atol=0.04, rtol=0)


def test_a_samples_draw_depends_on_its_generator_alone():
    together = random_fraction(25, 4, generators=generators(11, 12, 13, 14)).trained_NK
    halves = [random_fraction(25, 2, generators=generators(*seeds)).trained_NK for seeds in [(11, 12), (13, 14)]]
    assert together.equal(torch.cat(halves))
    assert not together[0].equal(together[1])


def test_sliding_window():
    window = sliding_window(8, 2, start=2, size=3)
    assert window.stochastic_K.nonzero().squeeze(1).tolist() == [2, 3, 4]
    assert window.trained_NK.tolist() == [window.stochastic_K.tolist()] * 2
    assert sliding_window(8, 1, start=5, size=2).stochastic_K.nonzero().squeeze(1).tolist() == [5, 6]


def test_window_start_by_hand():
    assert [window_start(i, 10, size=4) for i in range(8)] == [0, 1, 2, 3, 4, 5, 0, 1]
    assert [window_start(i, 10, size=4, every=3) for i in range(7)] == [0, 0, 0, 1, 1, 1, 2]
    assert [window_start(i, 10, size=4, stride=3) for i in range(5)] == [0, 3, 5, 0, 3]
    assert [window_start(i, 10, size=9) for i in range(3)] == [0, 0, 0]


@pytest.mark.parametrize(("T", "size", "stride"), [(25, 4, 1), (25, 4, 4), (10, 4, 3), (7, 5, 5), (2, 1, 1)])
def test_each_step_but_the_last_has_its_turn(T, size, stride):
    turns = [sliding_window(T, 1, window_start(i, T, size, stride), size).stochastic_K for i in range(2 * T)]
    assert torch.stack(turns).any(dim=0).tolist() == [True] * (T - 1) + [False]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: all_steps(1, 3), "does not fit"),
        (lambda: all_steps(5, 0), "num_samples"),
        (lambda: random_fraction(5, 2, 0.0, generators=generators(1, 2)), "fraction"),
        (lambda: random_fraction(5, 2, generators=generators(1)), "one generator each"),
        (lambda: sliding_window(8, 1, start=5, size=3), "does not fit"),
        (lambda: sliding_window(8, 1, start=-1, size=3), "does not fit"),
        (lambda: window_start(-1, 8, 3), "iteration"),
        (lambda: window_start(0, 8, 8), "size"),
        (lambda: Window(torch.tensor([True, True]), torch.tensor([[True, False]])), "last transition"),
        (lambda: Window(torch.tensor([False, False]), torch.tensor([[True, False]])), "only stochastic"),
        (lambda: Window(torch.tensor([True, False]), torch.tensor([[False, False]])), "no .sample, step. pair"),
        (lambda: Window(torch.tensor([True, False]), torch.tensor([True, False])), r"\[N, K\]"),
        (lambda: Window(torch.tensor([1, 0]), torch.tensor([[1, 0]])), "bool"),
    ],
)
def test_wrong_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
