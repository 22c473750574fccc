"""Conflict and what SARS leaves: by hand on few samples, and on Gaussian advantages whose answer is known."""

import math
from pathlib import Path

import pytest
import torch
from support.still import Component, Endless, Still

from cgrpo.algorithm import credit_table, diagnostics
from cgrpo.analysis import AnalysisInputs, conflict, measure_conflict, measure_shaping, shaping_against_sum
from cgrpo.app.requests import AnalysisRequest
from cgrpo.config import load_config
from cgrpo.errors import UserError

NAN = math.nan


def gaussian(correlation: float, groups: int = 2000) -> torch.Tensor:
    noise = torch.randn(groups, 12, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    second = correlation * noise[..., 0] + (1 - correlation**2) ** 0.5 * noise[..., 1]
    return torch.stack([noise[..., 0], second], -1)


def test_one_group_by_hand():
    """Identity 1, 1, -1, -1 and prompt 1, -1, 1, -1 (times sqrt(3/4)): one of each kind, as if independent."""
    scores = torch.tensor([[[3.0, 7.0], [3.0, 5.0], [1.0, 7.0], [1.0, 5.0]]])
    found = conflict(scores, alpha=0.5)
    a = math.sqrt(3 / 4)
    bonus = 0.5 * math.tanh(a * a)
    assert [kind.share for kind in found.kinds.values()] == [0.25] * 4
    assert [kind.expected for kind in found.kinds.values()] == [0.25] * 4
    assert [kind.naive for kind in found.kinds.values()] == pytest.approx([a, 0, 0, -a])
    assert [kind.sars for kind in found.kinds.values()] == pytest.approx([a + bonus, -bonus, -bonus, -a - bonus])
    assert found.conflict_share.mean == found.if_independent == 0.5 and found.correlation.mean == pytest.approx(
        0, abs=1e-12
    )


def test_opposed_rewards_are_always_in_conflict():
    """Prompt is minus identity: every sample is in conflict, more than dealt at random."""
    scores = torch.tensor([[[1.0, -1.0], [2.0, -2.0], [6.0, -6.0]]])
    found = conflict(scores)
    assert found.conflict_share.mean == 1 and found.correlation.mean == pytest.approx(-1)
    assert found.kinds["identity alone"].share == pytest.approx(1 / 3)  # the third alone
    assert found.kinds["prompt alone"].share == pytest.approx(2 / 3)
    # Identity: 1 above, 2 below; prompt: 2 above, 1 below; so 1/3 * 1/3 + 2/3 * 2/3.
    assert found.if_independent == pytest.approx(5 / 9) and found.beyond_independence.mean == pytest.approx(4 / 9)


def test_it_is_what_training_logs():
    scores = gaussian(-0.4, 50)
    table = credit_table(scores, torch.full((1, 2), 0.5))
    logged = diagnostics(scores, table)
    found = conflict(scores)
    assert found.conflict_share.mean == pytest.approx(logged["conflict_share"])
    assert found.correlation.mean == pytest.approx(logged["reward_correlation"])
    assert shaping_against_sum(scores).credits["SARS"].shift == pytest.approx(logged["bonus_shift"], abs=1e-9)


def test_independent_rewards_lie_at_independence():
    found = conflict(gaussian(0.0))
    assert (
        found.beyond_independence.low < 0 < found.beyond_independence.high
        and found.conflict_share.mean == pytest.approx(0.5, abs=0.01)
    )


def test_groups_that_say_nothing_are_left_out():
    flat = [[1.0, 1.0], [1.0, 2.0], [1.0, 3.0]]
    failed = [[1.0, NAN], [2.0, 1.0], [3.0, 2.0]]
    good = [[1.0, 2.0], [2.0, 1.0], [3.0, 5.0]]
    found = conflict(torch.tensor([flat, failed, good]))
    assert (found.groups, found.groups_left_out) == (1, 2) and math.isnan(found.conflict_share.low)


@pytest.mark.parametrize(("correlation", "slope", "r2"), [(0.0, 1.22, 0.96), (-0.9, 1.04, 0.60)])
def test_sars_is_to_first_order_a_scaled_sum(correlation: float, slope: float, r2: float):
    """Gaussian advantages, alpha 0.5: known from simulation (groups of 12 pull the figures a little)."""
    found = shaping_against_sum(gaussian(correlation))
    assert found.credits["SARS"].slope == pytest.approx(slope, abs=0.03)
    assert found.credits["SARS"].r2 == pytest.approx(r2, abs=0.04)
    assert found.credits["SARS"].shift < -0.05 and found.credits["SARS, recentred"].shift == pytest.approx(0, abs=1e-9)


def test_a_sum_that_is_scaled_leaves_nothing():
    fit = shaping_against_sum(gaussian(0.3), alpha=0.5).credits["plain sum, scaled alike"]
    assert (fit.r2, fit.cosine, fit.turned, fit.reordered) == pytest.approx((1, 1, 0, 0))
    none = shaping_against_sum(gaussian(0.3), alpha=0.0).credits["SARS"]
    assert (none.slope, none.shift, none.r2) == pytest.approx((1, 0, 1))


def test_orders_and_signs_by_hand():
    """Both good, and one that only identity likes: SARS turns the second's sign and changes one of three pairs."""
    from cgrpo.analysis.shaping import fit_line

    plain = torch.tensor([[0.1, 0.5, -0.6]], dtype=torch.float64)
    fit = fit_line(plain, torch.tensor([[-0.2, 1.5, -0.1]], dtype=torch.float64))
    assert fit.turned == pytest.approx(1 / 3) and fit.reordered == pytest.approx(1 / 3)
    assert fit.clamped == pytest.approx(1 / 3)


def subject(method: str, *settings: str, **rewards) -> AnalysisInputs:
    return AnalysisInputs(load_config("toybox", (f"method={method}", *settings)), Still(), rewards, Endless())


@pytest.mark.parametrize("settings", [("grpo", "sampling.window.type=sliding"), ("grpo",), ("forward",)])
def test_groups_are_drawn_as_each_method_draws_them(settings: tuple[str, ...]):
    rewards = {"prompt": Component(0), "identity": Component(1)}
    found = measure_conflict(subject(*settings, **rewards), groups=10)
    assert found.groups == 10 and found.conflict_share.mean == pytest.approx(0.5, abs=0.15)
    shaped = measure_shaping(subject(*settings, "shaping.alpha=0.2", **rewards), groups=3)
    assert shaped.alpha == 0.2 and shaped.adv_PG2.shape == (3, 12, 2)
    assert found.draw("x").axes and shaped.draw("x").axes and found.tables() and shaped.tables()


def test_identity_and_prompt_are_found_by_name():
    twin = {"prompt": Component(0), "brightness": Component(1), "identity": Component(0)}
    assert measure_conflict(subject("grpo", **twin), groups=2).correlation.mean == pytest.approx(1)


def test_paths_may_be_text(tmp_path: Path):
    assert AnalysisRequest(str(tmp_path), out=str(tmp_path / "x")).folder == tmp_path / "x"  # type: ignore[arg-type]
    with pytest.raises(UserError, match="nowhere: no such run"):
        _ = AnalysisRequest("nowhere").folder  # type: ignore[arg-type]


def test_what_can_not_be():
    with pytest.raises(UserError, match="no 'identity'"):
        measure_conflict(subject("grpo", prompt=Component(0)), groups=1)
    with pytest.raises(UserError, match="draws no groups"):
        measure_shaping(subject("sft", prompt=Component(0)), groups=1)
