"""Who trains a base towards copies, from made-up groups, and from the toy world's own."""

import json
import math
from pathlib import Path

import pytest
import torch

from cgrpo.algorithm import constant_weights, credit_table, reward_weights
from cgrpo.analysis.copying import CopyGroups, copying, measure_copying
from cgrpo.analysis.votes import CREDIT_FUNCTIONS, credit_by, vote
from cgrpo.app.main import main
from cgrpo.build import make_subject
from cgrpo.config import load_config
from cgrpo.errors import UserError


def groups(copies: list[int], size: int = 12, up: float = 1.0, down: float = 1.0) -> CopyGroups:
    """Groups with so many copies each, which have ``up`` more identity and ``down`` less prompt following."""
    rng = torch.Generator().manual_seed(1)
    copy_PG = (torch.arange(size) < torch.tensor(copies)[:, None]).double()
    noise_PG2 = 0.05 * torch.randn(len(copies), size, 2, generator=rng, dtype=torch.float64)
    scores_PG2 = noise_PG2 + torch.stack([up * copy_PG, -down * copy_PG], -1)
    planted_P2 = torch.tensor([[up, -down]], dtype=torch.float64).expand(len(copies), 2)
    return CopyGroups(scores_PG2, 0.6 + 0.35 * copy_PG, planted_P2)


def test_shares_and_the_variance_within_groups() -> None:
    found = copying(groups([0, 12, 6, 6]), steps=10)
    assert found.share.mean == pytest.approx(0.5) and found.mixed == 0.5 and found.all_copies == 0.25
    assert found.within == pytest.approx(0.5 * (6 * 0.5**2 * 2 / 11) / 0.25)  # two of four groups have any
    assert found.border == 0 and found.identity == pytest.approx(11**0.5 / 12**0.5, abs=0.01)
    assert found.by_count.keys() == {6} and found.by_count[6][1] == 2


def test_sars_votes_with_the_majority_and_the_plain_sum_does_not_vote() -> None:
    few, many = copying(groups([3] * 40), steps=10), copying(groups([9] * 40), steps=10)
    assert few.treatments["SARS"].direction == "fewer" and many.treatments["SARS"].direction == "more"
    assert "votes with the majority" in many.verdict and "SARS" in many.verdict
    for found in (few, many):
        assert abs(found.treatments["naive 1:1"].early.mean) < 0.5
        assert found.treatments["naive 1:1.5"].direction == "fewer" == found.treatments["TDW"].direction
        assert found.treatments["inverted TDW"].direction == "more"
        assert found.treatments["one-sided SARS"].direction == "fewer"
    assert few.by_count[3][0] == pytest.approx(-many.by_count[9][0], abs=0.3)


def test_the_vote_in_theory() -> None:
    """Two modes far apart: against copies while they are few, nothing at the half, for them when they are many."""
    drive = [vote(count, 12) for count in range(1, 12)]
    assert drive[2] == pytest.approx(-6.6, abs=0.2) and drive[8] == pytest.approx(6.6, abs=0.2)
    assert abs(drive[5]) < 0.2 and max(drive[:5]) < 0 < min(drive[6:])
    assert max(vote(count, 12, "one-sided SARS") for count in range(1, 12)) < 0  # never for copies


def test_what_was_not_measured_is_no_all_clear() -> None:
    """Of tasks without a reference nothing is known, nor of scores that failed."""
    drawn = groups([6, 6, 6])
    drawn.near_PG[0] = math.nan
    found = copying(drawn, steps=4)
    assert found.groups == 2 and found.share.mean == 0.5
    drawn.near_PG[:] = math.nan
    with pytest.raises(UserError, match="of 3 groups no sample has a reference"):
        copying(drawn, steps=4)
    drawn = groups([6, 6])
    drawn.scores_PG2[..., 0] = math.nan
    with pytest.raises(UserError, match="scores of identity"):
        copying(drawn, steps=4)


def test_without_copies_a_planted_one_tells() -> None:
    drawn = groups([0] * 20)
    found = copying(drawn, steps=10)
    assert found.share.mean == 0 and math.isnan(found.within) and math.isnan(found.treatments["SARS"].early.mean)
    assert found.treatments["SARS"].direction == "fewer" and found.treatments["max"].direction == "more"
    assert found.treatments["naive 1:1"].direction == "unclear" and "hardly ever" in found.verdict
    identity_alone = copying(groups([0] * 20, down=0.0), steps=10)
    assert identity_alone.treatments["naive 1:1"].direction == "more" and "Watch" in identity_alone.verdict


def test_credit_functions_are_those_that_training_has() -> None:
    scores_PG2 = groups([3, 5]).scores_PG2
    weights_KR = reward_weights(constant_weights(10, 0.5), ["identity", "prompt"]).to(scores_PG2)
    trained = credit_table(scores_PG2, weights_KR).credit_KPG
    assert torch.equal(credit_by(scores_PG2, CREDIT_FUNCTIONS["SARS"], 10), trained)


def test_the_copy_worlds_base_is_told_from_the_toy_worlds() -> None:
    found = {}
    for recipe in ("copy-forward", "forward"):
        cfg = load_config(recipe, ["sampling.rollout_steps=5"])
        found[recipe] = measure_copying(make_subject(cfg, None, split="validation"), groups=8)
        told = found[recipe].as_dict()
        assert told["verdict"] in found[recipe].tables()[0].note and len(told["credit_functions"]) == 9
        found[recipe].draw("base")
    assert found["copy-forward"].share.mean > 0.05 and found["forward"].share.mean == 0


def test_the_command_writes_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["analyze", "copying", "--recipe", "copy-forward", "--groups", "2", "--set", "sampling.rollout_steps=2"]
    assert main([*words, "--out", str(tmp_path)]) == 0
    told = json.loads((tmp_path / "copying.json").read_text())
    assert told["groups"] == 2 and told["threshold"] == 0.9 and told["verdict"] in capsys.readouterr().out
    assert (tmp_path / "copying.png").stat().st_size > 1000
    assert main([*words, "--threshold", "1", "--out", str(tmp_path)]) == 2
