"""Branching on a policy whose answer is known, and the shares and weights that follow from it."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from support.still import Component, Endless, Still

from cgrpo.algorithm import shifted_sigmas
from cgrpo.analysis import AnalysisInputs, measure_decisions
from cgrpo.analysis.decisions import decisions, step_shares, weights_from_shares
from cgrpo.app.main import main
from cgrpo.config import load_config

STEPS = 4
SMALL = ("sampling.steps=4", "sampling.noise_level=0.5", "sampling.batch=2000")  # ten tasks of 200 branches at a time


def subject(**rewards) -> AnalysisInputs:
    return AnalysisInputs(load_config("toybox", SMALL), Still(), rewards, Endless())


def test_shares_and_weights_by_hand():
    """open 8, 6, 2 and then nothing: the steps decide 2/8, 4/8, 2/8; the last step nothing."""
    shares = step_shares(torch.tensor([[8.0, 4.0], [6.0, 1.0], [2.0, 1.0], [0.0, 0.0]], dtype=torch.float64))
    assert shares[:, 0].tolist() == [0.25, 0.5, 0.25, 0.0]
    assert shares[:, 1].tolist() == [0.75, 0.0, 0.25, 0.0]
    weights = weights_from_shares(prompt_K=shares[:, 1], identity_K=shares[:, 0])
    # Averaged 2:1 at the ends, 1:2:1 between: prompt 1/2, 1/4, 1/6 and identity 1/3, 3/8, 1/3; the last as before it.
    assert weights.tolist() == pytest.approx([3 / 5, 2 / 5, 1 / 3, 1 / 3])


def test_open_variance_that_seems_to_rise_is_levelled():
    """4, 1, 3 is nearest to the falling 4, 2, 2."""
    shares = step_shares(torch.tensor([[4.0], [1.0], [3.0], [0.0]], dtype=torch.float64))
    assert shares[:, 0].tolist() == [0.5, 0.0, 0.5, 0.0]


def test_a_reward_that_never_varies_decides_nothing():
    open_PKR = torch.zeros(3, 3, 1, dtype=torch.float64)
    found = decisions(open_PKR, ["prompt"], [1.0, 0.6, 0.3], 2)
    assert found.share_KR.isnan()[:, 0].tolist() == [True, True, True] and not len(found.prompt_K)
    assert weights_from_shares(torch.zeros(3), torch.zeros(3)).tolist() == [0.5, 0.5, 0.5]
    found.draw("")
    open_PKR = torch.stack([open_PKR[..., 0] + torch.tensor([3.0, 2.0, 0.0]), open_PKR[..., 0] + torch.nan], -1)
    for names in (["prompt", "identity"], ["identity", "prompt"]):  # no weights are measured of a reward that failed
        found = decisions(open_PKR, names, [1.0, 0.6, 0.3], 2)
        assert not len(found.prompt_K) and "weights" not in found.as_dict() and "--set" not in found.tables()[0].note


def test_branching_finds_the_known_variance():
    """Every step's mean is a fixed multiple of x, so the open variance is a sum over steps worked out here."""
    found = measure_decisions(subject(first=Component(0), second=Component(1)), tasks=40, branches=200)
    sigmas = shifted_sigmas(STEPS, 1.0).double()
    gain, noise = [], []  # of each step: x' = gain * x + noise
    for s, s_next in zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True):
        d, last = s_next - s, s_next == 0
        v = -1 / (1 - s) if s < 1 else 0.0
        score = -(1 + (1 - s) * v) / s
        g = 0.0 if last else 0.5
        gain.append(1 + (v - g * g / 2 * score) * d)
        noise.append(g * (-d) ** 0.5)
    for name in ("first", "second"):
        for k in range(STEPS):
            wanted = sum(noise[j] ** 2 * torch.tensor(gain[j + 1 :]).prod().item() ** 2 for j in range(k, STEPS))
            assert found.open[name][k].mean == pytest.approx(wanted, rel=0.1)
    assert found.share_KR.sum(0).tolist() == pytest.approx([1.0, 1.0]) and found.low_KR.shape == (STEPS, 2)


def test_a_branch_that_could_not_be_scored_is_left_out():
    class Half(Component):
        def __call__(self, images, batch):
            return torch.where(torch.arange(len(images)) % 2 == 0, super().__call__(images, batch), torch.nan)

    found = measure_decisions(subject(half=Half(0), whole=Component(0)), tasks=20, branches=100)
    half, whole = (found.open[name][0].mean for name in ("half", "whole"))
    assert half == pytest.approx(whole, rel=0.2) and half > 0


def test_of_a_run_and_of_the_base(tmp_path: Path, capsys: pytest.CaptureFixture):
    """Json and plot beside the run; other noise for another seed; what can't be is one line."""
    words = ["analyze", "decisions", "--tasks", "2", "--branches", "2", "--set", "sampling.steps=3", "--out"]
    assert main([*words, str(tmp_path / "a")]) == 0
    told = json.loads((tmp_path / "a" / "decisions.json").read_text())
    assert told["policy"] == "base" and len(told["weights"]["prompt"]) == 3 and told["tasks"] == 2
    assert told["rewards"]["identity"]["decided"][2] == 0
    with Image.open(tmp_path / "a" / "decisions.png") as picture:
        assert picture.width > 1000
    assert main([*words, str(tmp_path / "b"), "--seed", "1"]) == 0
    assert json.loads((tmp_path / "b" / "decisions.json").read_text())["rewards"] != told["rewards"]
    capsys.readouterr()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--out"),
        (["absent"], "absent"),
        (["--out", "x", "--set", "method=forward"], "gradients"),
        (["--out", "x", "--set", "method=sft"], "without noise"),
        (["--out", "x", "--branches", "1"], '"1" for --branches'),
    ],
)
def test_mistakes_are_one_line(words, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["analyze", "decisions", "--tasks", "1", *words]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert said in error[-1] and error[-1].startswith("cgrpo: ") and not (tmp_path / "x").exists()
