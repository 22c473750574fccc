"""Where the authors' released code departs from their paper: what it does is written down, and is not what we do."""

import pytest
import torch

from cgrpo.algorithm import (
    Window,
    constant_weights,
    credit_table,
    linear,
    reward_weights,
    rollout,
    shifted_sigmas,
    sigmoid_weights,
)

NAMES = ["identity", "prompt"]


def released_weight(position: int) -> float:
    """The release's lookup: 0.7, the sigmoid, then 0.5 - and `position` is a place in a shuffled list of steps."""
    if position < 6:
        return 0.7
    return 0.5 if position >= 22 else sigmoid_weights(25)[position].item()


def test_identity_phase_has_the_low_weight_not_one_half():
    ours_K = sigmoid_weights(25)
    assert [released_weight(k) for k in (22, 23, 24)] == [0.5] * 3
    assert ours_K[22:].tolist() == pytest.approx([0.3] * 3)
    assert (1 - ours_K[24]).item() == pytest.approx(0.7)  # identity leads at the end, as the paper's text says


def test_weight_belongs_to_the_true_step_not_to_the_place_in_the_shuffled_list():
    order = [20, 3, 23, 0, 12, 9, 1, 17]  # trained steps of one sample, as drawn
    trained_NK = torch.zeros(1, 25, dtype=torch.bool)
    trained_NK[0, order] = True
    window = Window(torch.arange(25) < 24, trained_NK)
    trace = rollout(lambda x, sigma: x, torch.ones(1, 2, 2), shifted_sigmas(25), window, lambda k: torch.ones(1, 2, 2))
    assert sorted(trace.step_M.tolist()) == sorted(order)

    rewards_PGR = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])  # sample 0: identity bad, prompt good, |A| = 1 / sqrt(2)
    weights_KR = reward_weights(sigmoid_weights(25), NAMES)
    credit = credit_table(rewards_PGR, weights_KR, linear)
    ours = dict(zip(trace.step_M.tolist(), credit.of_pairs(trace.sample_M, trace.step_M).tolist(), strict=True))
    scale = 0.5**0.5
    for step in order:
        w = sigmoid_weights(25)[step].item()
        assert ours[step] == pytest.approx((w - (1 - w)) * scale, abs=1e-6)
    released = {step: (2 * released_weight(position) - 1) * scale for position, step in enumerate(order)}
    assert ours[20] == pytest.approx(-0.4 * scale, abs=1e-3) and released[20] == pytest.approx(0.4 * scale)
    assert ours[23] == pytest.approx(-0.4 * scale) and released[23] == pytest.approx(0.4 * scale)
    assert ours[1] == pytest.approx(0.4 * scale) and released[1] == pytest.approx(0.368666 * scale, abs=1e-5)


def test_without_time_awareness_the_two_would_agree():
    weights_KR = reward_weights(constant_weights(25), NAMES)
    rewards_PGR = torch.rand(2, 4, 2, generator=torch.Generator().manual_seed(0))
    credit_KPG = credit_table(rewards_PGR, weights_KR).credit_KPG
    assert (credit_KPG == credit_KPG[:1]).all()
