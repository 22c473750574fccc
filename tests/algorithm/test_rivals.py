"""The credit functions of other papers: by hand, and by what each must not depend on."""

import math

import pytest
import torch

from cgrpo.algorithm import (
    CreditSettings,
    adaptive_priorities,
    apex,
    batch_normalised,
    constant_weights,
    credit_table,
    dyref,
    focal_weights,
    gdpo,
    group_advantages,
    harmonic,
    linear,
    maximum,
    measured_weights,
    minimum,
    noise_weights,
    raw_sum,
    reward_weights,
    sars,
    shifted_sigmas,
    sigmoid_weights,
)

NAN = math.nan
NAMES = ["identity", "prompt"]
RIVALS = (raw_sum, gdpo, apex, dyref)


def random_rewards(P=3, G=6, R=2, seed=0):
    return torch.randn(P, G, R, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def even(T=3):
    return reward_weights(constant_weights(T), NAMES)


def tdw(T=10):
    return reward_weights(sigmoid_weights(T), NAMES)


def close(found, expected):
    torch.testing.assert_close(found, torch.tensor(expected, dtype=found.dtype), rtol=1e-4, atol=1e-5)


def test_dyref_scales_the_subjects_together():
    """Two subjects: steepness 10, their mean after the sigmoid is one reward with the weight of both."""
    rewards_PGR = torch.tensor([[[0.65, 0.2, 0.85], [0.85, 0.1, 0.45], [0.45, 0.9, 0.65]]], dtype=torch.float64)
    weights_KR = torch.tensor([[0.3, 0.4, 0.3]])
    half, high, low = 0.5, 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(2))
    joined_PGR = torch.tensor([[[(half + high) / 2, 0.2], [(high + low) / 2, 0.1], [(low + half) / 2, 0.9]]]).double()
    found = dyref(rewards_PGR, weights_KR, CreditSettings(subjects=(0, 2)))[0]
    expected = gdpo(joined_PGR, torch.tensor([[0.6, 0.4]]), CreditSettings())[0]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match="subjects"):
        dyref(rewards_PGR, weights_KR, CreditSettings(subjects=()))


def test_raw_sum_by_hand():
    rewards_PGR = torch.tensor([[[0.0, 4.0], [0.1, 2.0], [0.2, 0.0]]])
    weights_KR = torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.96, 0.04]])
    # Sums 2, 1.05, 0.1: the prompt decides, whose scores spread twenty times as far. Alone, identity orders the other
    # way. With 0.96 : 0.04, 0.16, 0.176, 0.192: now identity does.
    close(
        raw_sum(rewards_PGR, weights_KR, CreditSettings())[0],
        [[[1.0, 0.0, -1.0]], [[-1.0, 0.0, 1.0]], [[-1.0, 0.0, 1.0]]],
    )


def test_batch_normalisation_by_hand():
    credit_KPG = torch.tensor([[[1.0, -1.0, 9.0], [3.0, -3.0, 0.0]]])
    scored_PG = torch.tensor([[True, True, False], [True, True, False]])
    # Mean 0, variance (1 + 1 + 9 + 9) / 3, std 2.58199
    close(batch_normalised(credit_KPG, scored_PG), [[[0.387298, -0.387298, 0.0], [1.161895, -1.161895, 0.0]]])
    # Off zero: 0, 2 and 4 have mean 2 and std 2.
    shifted_KPG = torch.tensor([[[0.0, 2.0], [4.0, 7.0]]])
    close(batch_normalised(shifted_KPG, torch.tensor([[True, True], [True, False]])), [[[-1.0, 0.0], [1.0, 0.0]]])


def test_adaptive_priorities_by_hand():
    opposed, agreeing = [[0.0, 2.0], [2.0, 0.0]], [[4.0, 0.0], [6.0, 2.0]]
    found_PR = adaptive_priorities(torch.tensor([opposed, agreeing]), penalty=0.5)
    # Within groups both have variance 2. Over the batch identity (0, 2, 4, 6) has 20/3: potential sqrt(0.3) = 0.547723;
    # the prompt (2, 0, 0, 2) has 4/3: 1 at most. Opposed, both count half. Mean of all four: 0.580396.
    close(found_PR, [[0.471854, 0.861480], [0.943707, 1.722960]])
    close(adaptive_priorities(torch.tensor([opposed, agreeing]), penalty=0.0), [[0.707771, 1.292229]] * 2)


def test_conflict_is_the_mean_over_the_other_rewards():
    one_group = torch.tensor([[[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [2.0, -1.0, 1.0]]])  # opposed, and one that is flat
    # The flat one has nothing to learn, and opposes nobody: half of the others is in conflict. 0.75, 0.75, 0 -> 1.5 / 3
    close(adaptive_priorities(one_group, penalty=0.5), [[1.5, 1.5, 0.0]])


def test_noise_weights_by_hand():
    sigmas = torch.tensor([1.0, 0.5, 0.25, 0.0])
    # Flow-GRPO: sqrt(1 / 0.5 * 0.5) = 1, sqrt(0.5 / 0.5 * 0.25) = 0.5, sqrt(0.25 / 0.75 * 0.25) = 0.288675; mean 0.75
    close(noise_weights(sigmas, "flow-grpo", 0.7), [1.333333, 0.666667, 0.384900])
    # Constant noise: the square roots of the steps' lengths, 0.707107, 0.5, 0.5
    close(noise_weights(sigmas, "constant", 0.4), [1.171573, 0.828427, 0.828427])
    # CPS: in proportion to where the step ends, 0.5, 0.25, 0
    close(noise_weights(sigmas, "cps", 0.5), [1.333333, 0.666667, 0.0])


@pytest.mark.parametrize("kind", ["constant", "flow-grpo", "cps"])
def test_noise_weights_do_not_depend_on_the_noise_level(kind):
    sigmas = shifted_sigmas(10, 1.5)
    torch.testing.assert_close(noise_weights(sigmas, kind, 0.3), noise_weights(sigmas, kind, 0.9))
    assert noise_weights(sigmas, kind, 0.3)[:-1].mean().item() == pytest.approx(1)


def test_focal_weights_by_hand():
    ease_PG = torch.tensor([[0.4, 0.6], [0.7, 0.8], [NAN, NAN], [0.75, NAN]])
    # (1 - p)^2: 0.25, 0.0625, -, 0.0625; mean 0.125
    close(focal_weights(ease_PG, 2.0), [2.0, 0.5, 1.0, 0.5])
    close(focal_weights(ease_PG, 0.0), [1.0] * 4)
    close(focal_weights(torch.tensor([[1.0, 1.0], [3.0, 2.0]])), [1.0, 1.0])  # nothing is left to weigh by
    close(focal_weights(torch.tensor([[0.5, 0.5], [-3.0, 0.0]]), 1.0), [0.666667, 1.333333])  # p is within 0 .. 1


def test_measured_weights_are_as_given():
    assert measured_weights([0.25, 1.0, 0.0]).tolist() == [0.25, 1.0, 0.0]


def test_with_one_reward_raw_sum_is_naive():
    rewards_PGR = random_rewards(R=1)
    naive = credit_table(rewards_PGR, torch.ones(4, 1), linear)
    torch.testing.assert_close(credit_table(rewards_PGR, torch.ones(4, 1), raw_sum).credit_KPG, naive.credit_KPG)


def test_gdpo_is_naive_on_another_scale():
    rewards_PGR = random_rewards()
    gdpo_KPG = credit_table(rewards_PGR, tdw(), gdpo).credit_KPG
    naive_KPG = credit_table(rewards_PGR, tdw(), linear).credit_KPG
    torch.testing.assert_close(gdpo_KPG.flatten(1).std(dim=1), torch.ones(10, dtype=torch.float64))
    factor_KPG = gdpo_KPG / naive_KPG
    torch.testing.assert_close(factor_KPG, factor_KPG[:, :1, :1].expand_as(factor_KPG))


def test_one_group_without_penalty_has_even_priorities():
    rewards_PGR = random_rewards(P=1)
    naive = credit_table(rewards_PGR, tdw(), linear)
    even_priorities = credit_table(rewards_PGR, tdw(), apex, CreditSettings(conflict_penalty=0.0))
    torch.testing.assert_close(even_priorities.credit_KPG, naive.credit_KPG)


def test_rewards_opposed_in_a_group_take_weight_from_it():
    """Two rewards: from the whole group, in favour of groups in which they agree."""
    rewards_PGR = random_rewards(P=2, G=12)
    rewards_PGR[0, :, 1] = -rewards_PGR[0, :, 0]
    rewards_PGR[1, :, 1] = rewards_PGR[1, :, 0]
    priority_PR = adaptive_priorities(rewards_PGR, penalty=1.0)
    assert priority_PR[0].abs().max() < 1e-6 and (priority_PR[1] > 1).all()


@pytest.mark.parametrize("function", RIVALS)
def test_only_those_that_read_scores_feel_their_scale(function):
    rewards_PGR = random_rewards()
    scaled_PGR = rewards_PGR * torch.tensor([100.0, 1.0]) + torch.tensor([7.0, -3.0])
    one, other = (credit_table(r, tdw(), function).credit_KPG for r in (rewards_PGR, scaled_PGR))
    assert torch.allclose(one, other, atol=1e-6) == (function not in (raw_sum, dyref))
    if function is raw_sum:
        identity_KPG = group_advantages(rewards_PGR)[..., 0].expand_as(other)
        torch.testing.assert_close(other, identity_KPG, rtol=0, atol=0.1)


@pytest.mark.parametrize("function", RIVALS)
def test_permuting_a_group_permutes_its_credit(function):
    rewards_PGR, order = random_rewards(), torch.tensor([3, 0, 5, 1, 2, 4])
    permuted = credit_table(rewards_PGR[:, order], tdw(), function)
    torch.testing.assert_close(permuted.credit_KPG, credit_table(rewards_PGR, tdw(), function).credit_KPG[..., order])


@pytest.mark.parametrize("function", RIVALS)
def test_permuting_groups_permutes_their_credit(function):
    rewards_PGR, order = random_rewards(), torch.tensor([2, 0, 1])
    permuted = credit_table(rewards_PGR[order], tdw(), function)
    torch.testing.assert_close(permuted.credit_KPG, credit_table(rewards_PGR, tdw(), function).credit_KPG[:, order])


@pytest.mark.parametrize("function", RIVALS)
def test_a_sample_lacking_a_reward_is_as_if_absent(function):
    rewards_PGR = random_rewards(P=1)
    rewards_PGR[0, 4] = NAN
    rest = [0, 1, 2, 3, 5]
    credit = credit_table(rewards_PGR, tdw(), function)
    assert not credit.credit_KPG[..., 4].any() and not credit.scored_PG[0, 4]
    torch.testing.assert_close(
        credit.credit_KPG[..., rest], credit_table(rewards_PGR[:, rest], tdw(), function).credit_KPG
    )
    rewards_PGR[0, 4, 1] = 0.5  # one of the two is known: still no credit
    assert not credit_table(rewards_PGR, tdw(), function).credit_KPG[..., 4].any()


@pytest.mark.parametrize("function", RIVALS)
def test_a_reward_without_weight_is_only_watched(function):
    rewards_PGR = random_rewards(R=3)
    weights_KR = torch.cat([tdw(), torch.zeros(10, 1)], dim=1)
    expected_KPG = credit_table(rewards_PGR[..., :2], tdw(), function).credit_KPG
    rewards_PGR[0, 0, 2] = NAN
    watched = credit_table(rewards_PGR, weights_KR, function)
    torch.testing.assert_close(watched.credit_KPG, expected_KPG)
    assert not watched.bonus_PG.any()


@pytest.mark.parametrize("function", RIVALS)
def test_flat_groups_and_lone_samples_have_no_credit(function):
    flat_PGR = torch.full((2, 4, 2), 0.25)
    assert not credit_table(flat_PGR, even(), function).credit_KPG.any()
    lone_PGR = torch.full((1, 4, 2), NAN)
    lone_PGR[0, 1] = 1.0
    assert not credit_table(lone_PGR, even(), function).credit_KPG.any()


@pytest.mark.parametrize("function", RIVALS)
def test_credit_is_clamped(function):
    rewards_PGR = torch.zeros(1, 100, 2)
    rewards_PGR[0, 0] = 1.0
    credit = credit_table(rewards_PGR, even(), function, clamp=2.0)
    assert credit.credit_KPG.max() == 2 and credit.credit_KPG.dtype == torch.float32


def test_emphasis_multiplies_steps_and_groups():
    credit = credit_table(random_rewards(), even())
    emphasised = credit.emphasised(torch.tensor([1.0, 2.0, 0.0]), torch.tensor([1.0, 0.5, 3.0]))
    factors = [[1.0, 0.5, 3.0], [2.0, 1.0, 6.0], [0.0, 0.0, 0.0]]
    for k, row in enumerate(factors):
        for p, factor in enumerate(row):
            torch.testing.assert_close(emphasised.credit_KPG[k, p], factor * credit.credit_KPG[k, p])
    assert credit.emphasised() == credit


@pytest.mark.parametrize("bad", [-0.1, NAN, math.inf])
@pytest.mark.parametrize("function", [*RIVALS, linear, sars, harmonic, minimum, maximum])
def test_no_credit_function_takes_weights_that_are_none(function, bad):
    weights_KR = even()
    weights_KR[1, 0] = bad
    with pytest.raises(ValueError, match="weights_KR"):
        credit_table(random_rewards(), weights_KR, function)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: credit_table(random_rewards(), torch.ones(4, 3), raw_sum), "do not fit"),
        (lambda: batch_normalised(torch.ones(2, 3, 4), torch.ones(4, 3).bool()), "do not fit"),
        (lambda: adaptive_priorities(random_rewards(), 1.5), "penalty"),
        (lambda: noise_weights(torch.tensor([1.0, 0.0])), "K >= 2"),
        (lambda: noise_weights(shifted_sigmas(4), "ode"), "no noise"),
        (lambda: noise_weights(shifted_sigmas(4), noise_level=math.inf), "noise_level"),
        (lambda: noise_weights(torch.tensor([1.0, NAN, 0.0])), "sigma"),
        (lambda: focal_weights(torch.ones(4, 2), math.inf), "gamma"),
        (lambda: credit_table(random_rewards(), even()).emphasised(-torch.ones(3)), ">= 0"),
        (lambda: credit_table(random_rewards(), even()).emphasised(torch.tensor([1.0, NAN, 1.0])), "finite"),
        (lambda: credit_table(random_rewards(), even()).emphasised(None, torch.ones(1)), r"\[3\]"),
        (lambda: reward_weights(torch.full((4,), NAN), NAMES), "w_prompt_K"),
        (lambda: reward_weights(torch.ones(4), [*NAMES, "third"], others={"third": NAN}), "others"),
        (lambda: reward_weights(torch.ones(4), [*NAMES, "third"], others={"third": math.inf}), "others"),
        (lambda: focal_weights(torch.ones(4), 2.0), "P, G"),
        (lambda: focal_weights(torch.ones(4, 2), -1.0), "gamma"),
        (lambda: measured_weights([0.5, 1.5]), "in \\[0, 1\\]"),
        (lambda: measured_weights([]), "num_steps"),
        (lambda: credit_table(random_rewards(), tdw(), raw_sum, clamp=-1.0), "clamp"),
    ],
)
def test_wrong_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
