"""Eq. 8 and Eq. 10-11 against numbers worked out by hand, and the laws they obey."""

import math

import pytest
import torch

from cgrpo.algorithm import group_advantages, scored_mask, synergy

NAN = math.nan


def random_rewards(P=4, G=12, R=2, seed=0):
    return torch.randn(P, G, R, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_three_samples_by_hand():
    # 1, 2, 3: mean 2, unbiased std 1.   0, 0, 3: mean 1, squares 1 + 1 + 4 = 6, unbiased std sqrt(3).
    rewards_PGR = torch.tensor([[[1.0, 0.0], [2.0, 0.0], [3.0, 3.0]]])
    root = math.sqrt(3)
    expected_PGR = torch.tensor([[[-1.0, -1 / root], [0.0, -1 / root], [1.0, 2 / root]]])
    torch.testing.assert_close(group_advantages(rewards_PGR), expected_PGR, atol=1e-6, rtol=0)


def test_groups_and_rewards_do_not_mix():
    rewards_PGR = random_rewards()
    adv_PGR = group_advantages(rewards_PGR)
    for p in range(4):
        for r in range(2):
            alone_PGR = group_advantages(rewards_PGR[p : p + 1, :, r : r + 1])
            torch.testing.assert_close(adv_PGR[p : p + 1, :, r : r + 1], alone_PGR)
    torch.testing.assert_close(adv_PGR.mean(dim=1), torch.zeros(4, 2, dtype=torch.float64))
    torch.testing.assert_close(adv_PGR.std(dim=1), torch.ones(4, 2, dtype=torch.float64), atol=1e-7, rtol=0)


def test_permuting_a_group_permutes_its_advantages():
    rewards_PGR, order = random_rewards(), torch.randperm(12, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(group_advantages(rewards_PGR[:, order]), group_advantages(rewards_PGR)[:, order])


@pytest.mark.parametrize(("scale", "shift"), [(10.0, 0.0), (0.01, 0.0), (1.0, 7.0), (3.0, -2.0)])
def test_scale_and_shift_of_a_reward_do_not_matter(scale, shift):
    rewards_PGR = random_rewards()
    moved_PGR = group_advantages(scale * rewards_PGR + shift)
    torch.testing.assert_close(moved_PGR, group_advantages(rewards_PGR), atol=1e-5, rtol=0)


def test_nan_is_as_if_the_sample_were_absent_for_that_reward():
    rewards_PGR = random_rewards(P=1, G=5)
    rewards_PGR[0, 2, 0] = NAN
    adv_PGR = group_advantages(rewards_PGR)
    rest = [0, 1, 3, 4]
    torch.testing.assert_close(adv_PGR[:, rest, :1], group_advantages(rewards_PGR[:, rest, :1]))
    assert adv_PGR[0, 2, 0] == 0
    torch.testing.assert_close(adv_PGR[..., 1:], group_advantages(rewards_PGR[..., 1:]))  # the other is untouched
    assert scored_mask(rewards_PGR).tolist() == [[True, True, False, True, True]]


@pytest.mark.parametrize(
    "group",
    [
        [2.0, 2.0, 2.0, 2.0],
        [0.1, 0.1, 0.1, 0.1],
        [1000.0, 1000.0, 1000.0001, 1000.0],  # rounding of float32 around 1000
        [NAN, NAN, NAN, NAN],
        [NAN, 3.0, NAN, NAN],  # one scored sample has nothing to be compared with
    ],
)
def test_nothing_to_compare_gives_zero_not_noise(group):
    assert group_advantages(torch.tensor(group).reshape(1, 4, 1)).tolist() == torch.zeros(1, 4, 1).tolist()


def test_small_but_real_differences_count():
    rewards_PGR = torch.tensor([0.5, 0.50001, 0.50002]).reshape(1, 3, 1)
    expected_PGR = torch.tensor([-1.0, 0.0, 1.0]).reshape(1, 3, 1)
    torch.testing.assert_close(group_advantages(rewards_PGR), expected_PGR, atol=1e-2, rtol=0)


def test_tanh_synergy_by_hand():
    # tanh(1) = 0.761594, tanh(0.25) = 0.244919; alpha = 0.5
    adv_PGR = torch.tensor([[[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0], [0.5, 0.5], [0.0, 2.0]]])
    expected_PG = torch.tensor([[0.380797, -0.380797, -0.380797, -0.380797, 0.122459, 0.0]])
    torch.testing.assert_close(synergy(adv_PGR), expected_PG, atol=1e-6, rtol=0)


def test_harmonic_synergy_by_hand():
    # 2 * 1 / (2 + 1) = 2/3, and no pole where the advantages cancel
    adv_PGR = torch.tensor([[[2.0, 1.0], [2.0, -1.0], [-2.0, -1.0], [1.0, -1.0], [0.0, 0.0]]])
    expected_PG = 0.4 * torch.tensor([[2 / 3, -2 / 3, -2 / 3, -1 / 2, 0.0]])
    torch.testing.assert_close(synergy(adv_PGR, alpha=0.4, function="harmonic"), expected_PG, atol=1e-6, rtol=0)


@pytest.mark.parametrize("function", ["tanh", "harmonic"])
def test_only_agreement_on_good_is_rewarded(function):
    adv_PGR = random_rewards(P=50)
    bonus_PG = synergy(adv_PGR, function=function)
    both_good_PG = (adv_PGR > 0).all(dim=-1)
    assert (bonus_PG[both_good_PG] > 0).all()
    assert (bonus_PG[~both_good_PG] < 0).all()
    assert not synergy(adv_PGR, alpha=0, function=function).any()


def test_more_rewards_average_their_pairs_and_one_has_none():
    adv_PGR = random_rewards(R=3)
    pairs = [synergy(adv_PGR[..., list(pair)]) for pair in [(0, 1), (0, 2), (1, 2)]]
    torch.testing.assert_close(synergy(adv_PGR), torch.stack(pairs).mean(dim=0))
    torch.testing.assert_close(synergy(adv_PGR), synergy(adv_PGR[..., [2, 0, 1]]))
    assert synergy(adv_PGR[..., :1]).tolist() == torch.zeros(4, 12).tolist()


def test_recentring_takes_out_the_mean_over_scored_samples():
    adv_PGR = random_rewards()
    bonus_PG = synergy(adv_PGR)
    recentred_PG = synergy(adv_PGR, recentre=True)
    torch.testing.assert_close(recentred_PG, bonus_PG - bonus_PG.mean(dim=1, keepdim=True))
    scored_PG = torch.ones(4, 12, dtype=torch.bool)
    scored_PG[:, 3] = False
    masked_PG = synergy(adv_PGR, recentre=True, scored_PG=scored_PG)
    rest = [g for g in range(12) if g != 3]
    torch.testing.assert_close(masked_PG[:, rest], synergy(adv_PGR[:, rest], recentre=True))
    assert not masked_PG[:, 3].any()


@pytest.mark.parametrize(("correlation", "shift"), [(0.0, -0.10), (-0.9, -0.22), (0.5, -0.05)])
def test_bonus_moves_the_mean_credit_down(correlation, shift):
    rewards_PGR = random_rewards(P=4000)
    rewards_PGR[..., 1] *= math.sqrt(1 - correlation**2)
    rewards_PGR[..., 1] += correlation * rewards_PGR[..., 0]
    adv_PGR = group_advantages(rewards_PGR)
    bonus_PG = synergy(adv_PGR)
    assert abs(bonus_PG.mean().item() - shift) < 0.006
    if correlation == -0.9:  # with weights 1:1, 78 % of the samples are pushed down
        assert abs((adv_PGR.mean(dim=-1) + bonus_PG < 0).double().mean().item() - 0.78) < 0.01


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: group_advantages(torch.ones(4, 2)), "P, G, R"),
        (lambda: group_advantages(torch.ones(1, 4, 2, dtype=torch.long)), "floating point"),
        (lambda: group_advantages(torch.full((1, 4, 2), math.inf)), "infinite"),
        (lambda: synergy(torch.full((1, 4, 2), NAN)), "finite"),
        (lambda: synergy(torch.ones(1, 4, 2), alpha=-1), "alpha"),
        (lambda: synergy(torch.ones(1, 4, 1), function="min"), "unknown synergy"),  # type: ignore[arg-type]
        (lambda: synergy(torch.ones(1, 4, 2), scored_PG=torch.ones(1, 3, dtype=torch.bool)), "scored_PG"),
        (lambda: scored_mask(torch.ones(4)), "P, G, R"),
    ],
)
def test_wrong_input_is_refused_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
