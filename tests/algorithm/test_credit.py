"""The credit table: what fills it, what silences it, what is said about it."""

import math

import pytest
import torch

from cgrpo.algorithm import (
    CreditSettings,
    combine,
    constant_weights,
    credit_table,
    diagnostics,
    group_advantages,
    harmonic,
    linear,
    maximum,
    minimum,
    one_sided,
    reward_weights,
    sars,
    sigmoid_weights,
    synergy,
)

NAN = math.nan
NAMES = ["identity", "prompt"]


def random_rewards(P=3, G=6, R=2, seed=0):
    return torch.randn(P, G, R, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tdw(T=25):
    return reward_weights(sigmoid_weights(T), NAMES)


def infinite(scores_PGR, weights_KR, settings):
    credit_KPG, bonus_PG = linear(scores_PGR, weights_KR, settings)
    return credit_KPG / 0, bonus_PG


def test_combine_by_hand():
    weights_KR = torch.tensor([[0.25, 0.75], [1.0, 0.0]])
    adv_PGR = torch.tensor([[[2.0, -1.0], [4.0, 8.0]]])
    bonus_PG = torch.tensor([[0.5, 0.25]])
    # 0.25*2 - 0.75 + 0.5 = 0.25;  0.25*4 + 0.75*8 + 0.25 = 7.25;  2 + 0.5;  4 + 0.25
    assert combine(weights_KR, adv_PGR, bonus_PG).tolist() == [[[0.25, 7.25]], [[2.5, 4.25]]]
    assert combine(weights_KR, -adv_PGR, bonus_PG).tolist() == [[[0.75, -6.75]], [[-1.5, -3.75]]]


def test_full_method_is_equation_11_with_the_weights_of_the_true_step():
    rewards_PGR = random_rewards()
    credit = credit_table(rewards_PGR, tdw())
    for k, w_prompt in [(0, 0.7), (10, 0.5), (24, 0.3)]:
        for p, g in [(0, 0), (2, 5), (1, 3)]:
            identity, prompt = group_advantages(rewards_PGR)[p, g].tolist()
            agreement = math.tanh(identity * prompt)
            sign = 1 if identity > 0 or prompt > 0 else -1
            expected = (1 - w_prompt) * identity + w_prompt * prompt + sign * 0.5 * agreement
            assert credit.credit_KPG[k, p, g].item() == pytest.approx(expected, abs=1e-6)


def test_methods_are_choices_of_weights_and_shaping():
    rewards_PGR = random_rewards()
    adv_PGR = group_advantages(rewards_PGR)
    naive = credit_table(rewards_PGR, reward_weights(constant_weights(25), NAMES), linear)
    torch.testing.assert_close(naive.credit_KPG, adv_PGR.mean(dim=-1).expand(25, 3, 6))
    weak = credit_table(rewards_PGR, tdw(), harmonic, CreditSettings(alpha=0.2))
    torch.testing.assert_close(weak.bonus_PG, synergy(adv_PGR, 0.2, "harmonic"))
    recentred = credit_table(rewards_PGR, tdw(), sars, CreditSettings(recentre=True))
    torch.testing.assert_close(recentred.bonus_PG, synergy(adv_PGR, recentre=True))


@pytest.mark.parametrize("function", [minimum, maximum])
def test_min_and_max_replace_the_sum(function):
    rewards_PGR = random_rewards()
    adv_PGR = group_advantages(rewards_PGR)
    expected_PG = adv_PGR.amin(dim=-1) if function is minimum else adv_PGR.amax(dim=-1)
    credit = credit_table(rewards_PGR, tdw(), function, CreditSettings(alpha=0.9))
    torch.testing.assert_close(credit.credit_KPG, expected_PG.expand(25, 3, 6))
    torch.testing.assert_close(credit.bonus_PG, expected_PG)


def test_one_sided_keeps_one_quadrant_of_sars():
    """Where the focal reward gains and the other falls it is SARS's loss; elsewhere nothing, and never a gain."""
    rewards_PGR = random_rewards(P=4, G=12)
    identity_PG, prompt_PG = group_advantages(rewards_PGR).unbind(-1)
    for focal, quadrant_PG in (
        (0, (identity_PG > 0) & (prompt_PG < 0)),
        (1, (identity_PG < 0) & (prompt_PG > 0)),
        (None, torch.zeros(4, 12, dtype=torch.bool)),
    ):
        bonus_PG = credit_table(rewards_PGR, tdw(), one_sided, CreditSettings(alpha=0.8, focal=focal)).bonus_PG
        sars_PG = credit_table(rewards_PGR, tdw(), sars, CreditSettings(alpha=0.8)).bonus_PG
        torch.testing.assert_close(bonus_PG, torch.where(quadrant_PG, sars_PG, 0.0))
    # Three rewards, by hand: advantages (1, -0.5, 2) give tanh(1 * -0.5) and 0 of the two others, so half of 0.5 * it.
    scores_1GR = torch.tensor([[[1.0, -0.5, 2.0], [-1.0, 0.5, -2.0]]], dtype=torch.float64)
    a = group_advantages(scores_1GR)[0, 0]
    bonus_PG = credit_table(scores_1GR, torch.ones(1, 3), one_sided).bonus_PG
    assert bonus_PG[0].tolist() == pytest.approx([0.25 * math.tanh(a[0] * a[1]), 0.0])


def test_credit_is_clamped():
    rewards_PGR = torch.zeros(1, 100, 2)
    rewards_PGR[0, 0] = 1.0  # advantage 9.9: one success among a hundred
    assert credit_table(rewards_PGR, tdw()).credit_KPG[:, 0, 0].tolist() == [5.0] * 25
    assert credit_table(rewards_PGR, tdw(), minimum, clamp=2).credit_KPG.max() == 2


def test_a_sample_lacking_a_weighted_reward_has_no_credit():
    rewards_PGR = random_rewards(P=1)
    rewards_PGR[0, 4, 0] = NAN
    for function in (linear, sars, harmonic, one_sided, minimum, maximum):
        credit = credit_table(rewards_PGR, tdw(), function)
        assert not credit.credit_KPG[:, 0, 4].any() and not credit.bonus_PG[0, 4]
        assert credit.scored_PG.tolist() == [[True] * 4 + [False, True]]
        assert credit.credit_KPG[:, 0, :4].all()
    recentred = credit_table(rewards_PGR, tdw(), sars, CreditSettings(recentre=True))
    assert recentred.bonus_PG.sum().item() == pytest.approx(0, abs=1e-12)


def test_nan_in_every_reward_is_as_if_the_sample_were_absent():
    rewards_PGR = random_rewards(P=1)
    rewards_PGR[0, 4] = NAN
    rest = [0, 1, 2, 3, 5]
    for recentre in (False, True):
        settings = CreditSettings(recentre=recentre)
        with_nan = credit_table(rewards_PGR, tdw(), sars, settings).credit_KPG[..., rest]
        torch.testing.assert_close(with_nan, credit_table(rewards_PGR[:, rest], tdw(), sars, settings).credit_KPG)


def test_a_reward_without_weight_is_only_watched():
    rewards_PGR = random_rewards(R=3)
    weights_KR = torch.cat([tdw(), torch.zeros(25, 1)], dim=1)
    expected = credit_table(rewards_PGR[..., :2], tdw())
    rewards_PGR[0, 0, 2] = NAN
    for function in (sars, minimum, maximum):
        watched = credit_table(rewards_PGR, weights_KR, function)
        expected = credit_table(rewards_PGR[..., :2], tdw(), function)
        torch.testing.assert_close(watched.credit_KPG, expected.credit_KPG)
        assert watched.scored_PG.all()
    prompt_only = credit_table(rewards_PGR[..., :2], reward_weights(constant_weights(25, 1.0), NAMES))
    assert not prompt_only.bonus_PG.any()
    torch.testing.assert_close(prompt_only.credit_KPG[7], group_advantages(rewards_PGR)[..., 1])


def test_weight_at_a_single_step_is_weight():
    weights_KR = reward_weights(sigmoid_weights(25, 1.0, 0.0), NAMES)  # identity has none until step 6
    rewards_PGR = random_rewards()
    rewards_PGR[0, 0, 0] = NAN
    assert not credit_table(rewards_PGR, weights_KR).scored_PG[0, 0]


def test_permuting_a_group_permutes_its_credit():
    rewards_PGR, order = random_rewards(), torch.tensor([3, 0, 5, 1, 2, 4])
    for function in (sars, harmonic, minimum):
        torch.testing.assert_close(
            credit_table(rewards_PGR[:, order], tdw(), function).credit_KPG,
            credit_table(rewards_PGR, tdw(), function).credit_KPG[..., order],
        )


def test_pairs_are_read_at_sample_and_true_step():
    credit = credit_table(random_rewards(), tdw())
    read_M = credit.of_pairs(torch.tensor([0, 7, 17]), torch.tensor([3, 24, 11]))
    expected = [credit.credit_KPG[3, 0, 0], credit.credit_KPG[24, 1, 1], credit.credit_KPG[11, 2, 5]]
    assert read_M.tolist() == [value.item() for value in expected]


def test_diagnostics_by_hand():
    rewards_PGR = torch.tensor(
        [
            [[0.0, 4.0], [1.0, 3.0], [3.0, 1.0], [4.0, 0.0]],  # correlation -1, all four in conflict
            [[0.0, 0.0], [2.0, 2.0], [2.0, 2.0], [4.0, 4.0]],  # correlation +1, none; two agree, two are average
            [[2.0, 0.0], [2.0, 1.0], [2.0, 3.0], [2.0, 4.0]],  # no spread: no correlation, none
            [[0.0, 1.0], [1.0, 0.0], [NAN, 9.0], [0.5, NAN]],  # -1 over the two with both rewards
        ]
    )
    credit = credit_table(rewards_PGR, tdw())
    found = diagnostics(rewards_PGR, credit)
    last = group_advantages(rewards_PGR)[3]
    conflicts = 4 + sum(float(last[g, 0] * last[g, 1] < 0) for g in (0, 1))
    assert found["conflict_share"] == pytest.approx(conflicts / 14)
    assert found["reward_correlation"] == pytest.approx((-1 + 1 - 1) / 3)
    assert found["unscored_share"] == pytest.approx(2 / 16)
    mean_P = [credit.bonus_PG[p].sum().item() / count for p, count in enumerate((4, 4, 4, 2))]
    assert found["bonus_shift"] == pytest.approx(sum(mean_P) / 4)


@pytest.mark.parametrize("function", [sars, harmonic, minimum, maximum])
def test_bonus_shift_is_the_mean_of_the_credit(function):
    rewards_PGR = random_rewards(P=20)
    credit = credit_table(rewards_PGR, tdw(), function)
    assert diagnostics(rewards_PGR, credit)["bonus_shift"] == pytest.approx(credit.credit_KPG[4].mean().item())


def test_independent_rewards_conflict_in_half_of_the_samples():
    rewards_PGR = random_rewards(P=2000, G=12)  # the paper's Figure 7 counts 50.2 %
    found = diagnostics(rewards_PGR, credit_table(rewards_PGR, tdw()))
    assert abs(found["conflict_share"] - 0.5) < 0.01
    assert abs(found["reward_correlation"]) < 0.02


def test_undefined_diagnostics_are_nan():
    rewards_PGR = torch.full((2, 4, 1), NAN)
    found = diagnostics(rewards_PGR, credit_table(rewards_PGR, torch.ones(5, 1)))
    assert found.pop("unscored_share") == 1
    assert all(math.isnan(value) for value in found.values())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: credit_table(random_rewards(), torch.ones(25, 3)), "do not fit"),
        (lambda: credit_table(random_rewards(), torch.zeros(25, 2)), "no reward"),
        (lambda: credit_table(random_rewards(), -tdw()), ">= 0"),
        (lambda: credit_table(random_rewards(), tdw(), clamp=0), "clamp"),
        (lambda: credit_table(random_rewards(), torch.full((25, 2), NAN)), "finite"),
        (lambda: credit_table(random_rewards(), tdw(), lambda s, w, _: (s, s[..., 0])), "K, P, G"),
        (lambda: credit_table(random_rewards(), tdw(), lambda s, w, _: (s.sum(-1).expand(25, -1, -1), s)), "P, G"),
        (lambda: credit_table(random_rewards(), tdw(), infinite), "not finite"),
        (lambda: combine(torch.ones(2, 2), torch.ones(1, 4, 3), torch.ones(1, 4)), "do not fit"),
        (lambda: combine(torch.ones(2, 2), torch.ones(1, 4, 2), torch.ones(4, 1)), "does not fit"),
        (lambda: diagnostics(random_rewards(P=2), credit_table(random_rewards(), tdw())), "scores_PGR"),
    ],
)
def test_wrong_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
