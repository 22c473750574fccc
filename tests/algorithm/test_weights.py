"""Eq. 12 against numbers worked out by hand."""

import math

import pytest
import torch

from cgrpo.algorithm import constant_weights, reward_weights, sigmoid_weights


def test_the_papers_curve_by_hand():
    # w = 0.3 + 0.4 / (1 + exp(0.8 * (k - 10))) between steps 6 and 21
    w_prompt_K = sigmoid_weights(25)
    expected = {0: 0.7, 5: 0.7, 6: 0.3 + 0.4 / (1 + math.exp(-3.2)), 10: 0.5, 11: 0.3 + 0.4 / (1 + math.exp(0.8))}
    expected |= {21: 0.3 + 0.4 / (1 + math.exp(8.8)), 22: 0.3, 24: 0.3}
    for k, weight in expected.items():
        assert w_prompt_K[k].item() == pytest.approx(weight, abs=1e-6), k
    assert w_prompt_K[6].item() == pytest.approx(0.684333, abs=1e-5)
    assert w_prompt_K[11].item() == pytest.approx(0.424010, abs=1e-5)
    assert (w_prompt_K.diff() <= 0).all()


@pytest.mark.parametrize(("high", "low"), [(1.0, 0.0), (0.6, 0.4), (0.7, 0.3)])
def test_bounds(high, low):
    w_prompt_K = sigmoid_weights(25, high, low)
    assert (w_prompt_K[0].item(), w_prompt_K[-1].item()) == (pytest.approx(high), pytest.approx(low))
    assert w_prompt_K[10].item() == pytest.approx((high + low) / 2)


def test_inverted_swaps_the_two_rewards():
    torch.testing.assert_close(sigmoid_weights(25, inverted=True) + sigmoid_weights(25), torch.ones(25))
    assert sigmoid_weights(25, 0.9, 0.3, inverted=True)[[0, 24]].tolist() == pytest.approx([0.1, 0.7])


@pytest.mark.parametrize("factor", [2, 3, 7, 40])
def test_any_number_of_steps_gives_the_same_curve_on_progress(factor):
    torch.testing.assert_close(sigmoid_weights(25 * factor)[::factor], sigmoid_weights(25))


def test_borders_hold_for_every_number_of_steps():
    for T in range(1, 301):
        w_prompt_K = sigmoid_weights(T)
        first = -(-6 * T // 25)  # smallest k with k/T >= 6/25, in integers
        third = -(-22 * T // 25)
        assert (w_prompt_K[:first] == torch.tensor(0.7)).all(), T
        assert (w_prompt_K[first:third] < 0.7).all(), T
        assert (w_prompt_K[third:] == torch.tensor(0.3)).all(), T
        if third > first:
            assert w_prompt_K[third - 1] > 0.3, T


def test_columns_are_found_by_name():
    w_prompt_K = sigmoid_weights(25)
    torch.testing.assert_close(
        reward_weights(w_prompt_K, ["identity", "prompt"]), torch.stack([1 - w_prompt_K, w_prompt_K], dim=1)
    )
    torch.testing.assert_close(
        reward_weights(w_prompt_K, ["clip", "style", "dino"], prompt="clip", identity="dino"),
        torch.stack([w_prompt_K, torch.zeros(25), 1 - w_prompt_K], dim=1),
    )
    shared_KR = reward_weights(w_prompt_K, ["identity", "one", "prompt", "two"], identity=["one", "two"])
    share_K = (1 - w_prompt_K) / 2
    torch.testing.assert_close(shared_KR, torch.stack([0 * share_K, share_K, w_prompt_K, share_K], dim=1))
    assert reward_weights(constant_weights(3, 1.0), ["prompt"]).tolist() == [[1.0]] * 3
    assert reward_weights(constant_weights(2, 0.25), ["prompt", "identity"]).tolist() == [[0.25, 0.75]] * 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sigmoid_weights(0), "num_steps"),
        (lambda: sigmoid_weights(25, 0.3, 0.7), "low"),
        (lambda: sigmoid_weights(25, 1.1, 0.0), "high"),
        (lambda: constant_weights(25, 1.5), "weight"),
        (lambda: constant_weights(0), "num_steps"),
        (lambda: reward_weights(constant_weights(4), ["prompt"]), "identity"),
        (lambda: reward_weights(constant_weights(4), ["identity", "promt"]), "'prompt'"),
        (lambda: reward_weights(constant_weights(4), ["prompt", "prompt", "identity"]), "differ"),
        (lambda: reward_weights(constant_weights(4), ["prompt", "one"], identity=["one", "one"]), "differ"),
        (lambda: reward_weights(constant_weights(4), ["prompt", "one"], identity=["one", "two"]), "'two'"),
        (lambda: reward_weights(torch.ones(4, 2), ["prompt", "identity"]), "w_prompt_K"),
    ],
)
def test_wrong_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
