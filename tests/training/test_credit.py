"""From the tables ``shaping`` and ``weights`` to the credit table: every choice reaches it, whatever the method."""

import pytest
import torch

from cgrpo.algorithm import CreditSettings, credit_table, focal_weights, noise_weights, reward_weights, shifted_sigmas
from cgrpo.build import make_policy, make_source
from cgrpo.config import CREDITS, load_config
from cgrpo.errors import UserError
from cgrpo.rewards import make_rewards
from cgrpo.training.loop import make_loop
from cgrpo.training.runtime import Runtime
from cgrpo.training.scoring import CreditTable

NAMES = ["identity", "prompt"]
SIGMAS = shifted_sigmas(10, 1.5)
MEASURED = tuple(0.05 * k for k in range(10))


def filled(*settings: str, kind="constant") -> torch.Tensor:
    return CreditTable(load_config("toybox", settings), NAMES, SIGMAS, kind, 0.5)(scores()).credit_KPG


def scores() -> torch.Tensor:
    return torch.rand(3, 12, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("shaping", CREDITS.own)
def test_every_type_is_its_function(shaping):
    weights_KR = reward_weights(torch.tensor(MEASURED), NAMES)
    measured = ("weights.type=measured", f"weights.measured={list(MEASURED)}")
    found_KPG = filled(*measured, f"shaping.type={shaping}", "shaping.alpha=0.3", "shaping.conflict_penalty=0.9")
    settings = CreditSettings(alpha=0.3, conflict_penalty=0.9)
    expected = credit_table(scores(), weights_KR, CREDITS.load(shaping), settings)
    torch.testing.assert_close(found_KPG, expected.credit_KPG)


def test_each_subject_has_its_share_of_identity():
    """Of TDW's weight, by name; the mean is watched alone, and SARS is over all pairs of the three others."""
    names = ["identity", "prompt", "identity_1", "identity_2"]
    table = CreditTable(load_config("toybox", ["weights.subjects=2"]), names, SIGMAS, "ode", 0.5)
    rewards_PGR = torch.rand(2, 6, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    one_KR = CreditTable(load_config(), NAMES, SIGMAS, "ode", 0.5).weights_KR
    expected_KR = torch.stack([one_KR[:, 1], one_KR[:, 0] / 2, one_KR[:, 0] / 2], dim=1)
    expected = credit_table(rewards_PGR[..., 1:], expected_KR)
    torch.testing.assert_close(table(rewards_PGR).credit_KPG, expected.credit_KPG)
    assert table.settings.subjects == (1, 2)
    with pytest.raises(UserError, match=r"one-sided"):
        load_config("toybox", ["weights.subjects=2", "shaping.type=one-sided"])


def test_recentring_and_the_clamp_arrive():
    whole = filled("shaping.recentre=true", "training.clamp=0.25")
    weights_KR = CreditTable(load_config(), NAMES, SIGMAS, "ode", 0.5).weights_KR
    expected = credit_table(scores(), weights_KR, CREDITS.load("tanh"), CreditSettings(0.5, recentre=True))
    torch.testing.assert_close(whole, expected.credit_KPG.clamp(-0.25, 0.25))


def test_one_sided_guards_against_the_focal_reward():
    """By name, among the rewards that have weight; without any weight it guards against nothing."""
    for focal, index in (("identity", 0), ("prompt", 1)):
        filled_KPG = filled("shaping.type=one-sided", f"shaping.focal_reward={focal}")
        weights_KR = CreditTable(load_config(), NAMES, SIGMAS, "ode", 0.5).weights_KR
        expected = credit_table(scores(), weights_KR, CREDITS.load("one-sided"), CreditSettings(focal=index))
        torch.testing.assert_close(filled_KPG, expected.credit_KPG)
    alone = ("weights.type=constant", "weights.prompt=1")
    torch.testing.assert_close(filled("shaping.type=one-sided", *alone), filled("shaping.type=none", *alone))


def test_steps_count_by_their_noise():
    plain_KPG = filled()
    for kind in ("constant", "flow-grpo", "cps"):
        factor_K = noise_weights(SIGMAS, kind).double()
        torch.testing.assert_close(filled("weights.by_noise=true", kind=kind), plain_KPG * factor_K[:, None, None])


def test_groups_count_by_what_they_lack():
    for name, column in (("identity", 0), ("prompt", 1)):
        factor_P = focal_weights(scores()[..., column], 1.5)
        found_KPG = filled("shaping.focal=1.5", f"shaping.focal_reward={name}")
        torch.testing.assert_close(found_KPG, filled() * factor_P[:, None])


@pytest.mark.parametrize(("method", "kind"), [("grpo", "cps"), ("forward", "flow-grpo")])
def test_both_methods_train_on_it(small, method, kind):
    """Noise: GRPO's own; the forward process, which draws none, takes Flow-GRPO's."""
    settings = ["shaping.type=apex", "shaping.focal=2", "weights.by_noise=true", "weights.type=constant"]
    settings += ["sampling.kind=cps"] if method == "grpo" else []
    cfg = small(f"method={method}", *settings)
    made = make_loop(cfg, make_policy(cfg), make_rewards(cfg.rewards), make_source(cfg), Runtime())
    torch.testing.assert_close(made.credit.step_K, noise_weights(shifted_sigmas(4, 1.5), kind))  # type: ignore[attr-defined]
    assert next(iter(made.run(0))).metrics["gradient_norm"] > 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["weights.type=measured"], "weights.measured: 0 weights for sampling.steps = 10"),
        (["weights.type=measured", "weights.measured=[0.5, 0.5]"], "2 weights for sampling.steps = 10"),
        (["weights.type=measured", "weights.measured=[1.5]"], "weights.measured.0"),
        (["shaping.focal=2", "shaping.focal_reward=style"], "reward 'style' is left out"),
        (["shaping.type=one-sided", "shaping.focal_reward=style"], "reward 'style' is left out"),
        (["shaping.focal=-1"], "shaping.focal"),
        (["shaping.type=gdpo", "shaping.recentre=true"], "recentre needs a bonus"),
        (["shaping.type=squared"], "shaping.type: there is no credit function 'squared'; choose one of tanh, none,"),
        (["shaping.type=harmnic"], "did you mean 'harmonic'"),
        (["shaping.conflict_penalty=2"], "shaping.conflict_penalty"),
    ],
)
def test_mistakes_are_one_line(settings, said):
    with pytest.raises(UserError) as caught:
        load_config("toybox", settings)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_title_says_how_the_table_is_filled():
    for recipe, words in {
        "rival-raw-sum": "GRPO: raw sum of the rewards + constant weights 0.5 : 0.5",
        "rival-gdpo": "GRPO: GDPO + constant weights 0.5 : 0.5",
        "one-sided": "GRPO: one-sided SARS + constant weights 0.5 : 0.5",
        "rival-apex": "GRPO: adaptive priorities (after APEX) + constant weights 0.5 : 0.5",
        "rival-tempflow": "Naive GRPO, weights prompt : identity = 0.5 : 0.5, steps by their noise",
        "rival-focal": "Naive GRPO, weights prompt : identity = 0.5 : 0.5, groups by (1 - identity)^2",
    }.items():
        assert load_config(recipe).title() == words
    measured = ("weights.type=measured", f"weights.measured={list(MEASURED)}")
    assert load_config("toybox", measured).title() == "Customized-GRPO: SARS + measured weights"
