"""A family of policies that another package brings trains, is watched, evaluated, sampled from and resumed."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support.packages import install
from support.toy_policy import ToyPolicy, ToySettings

from cgrpo.app.run import train
from cgrpo.app.sample import sample
from cgrpo.build import make_policy, make_source
from cgrpo.config import load_config, override
from cgrpo.errors import UserError
from cgrpo.policies.build import family_of
from cgrpo.rewards import make_rewards
from cgrpo.training.loop import make_loop
from cgrpo.training.runtime import Runtime


@pytest.fixture
def toy(tmp_path_factory, monkeypatch):
    """A package that adds the family "toy" to those of cgrpo is installed."""
    install(tmp_path_factory.mktemp("site"), monkeypatch, "cgrpo.policies", {"toy": "support.toy_policy:FAMILY"})


def test_trained_by_grpo(small):
    cfg = small("training.iterations=2", "training.learning_rate=0.02", "objective.kl=0.01")
    policy = ToyPolicy()
    rows = [
        done.metrics for done in make_loop(cfg, policy, make_rewards(cfg.rewards), make_source(cfg), Runtime()).run(0)
    ]
    assert len(rows) == 2 and policy.delta.weight.any()
    assert all(row["gradient_norm"] > 0 and row["ratio_drift"] < 1e-4 for row in rows)
    assert all(row["kl"] > 0 for row in rows)


def test_a_whole_run(small, toy, tmp_path):
    settings = ["training.iterations=2", "evaluation.enabled=true", "evaluation.subjects=2", "guard.every=1"]
    settings += ["evaluation.prompts_per_subject=2", "guard.tasks=4", "training.learning_rate=0.02"]
    settings += ["policy.type=toy", "policy.gain=2.5"]
    whole, half = tmp_path / "whole", tmp_path / "half"
    cfg = small(*settings)
    train(cfg, whole)
    assert json.loads((whole / "config.json").read_text())["policy"]["gain"] == 2.5
    train(small(*settings, "training.iterations=1"), half)
    train(cfg, resume=half)
    (one, other) = (load_file(run / "adapter" / "toy.safetensors")["delta"] for run in (whole, half))
    assert one.any() and torch.equal(one, other)
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["guard"]["checks"] == 2 and summary["metrics"]["prompt"]["difference"] != 0
    Image.new("RGB", (32, 32), "red").save(tmp_path / "red.png")
    files = sample(whole, reference=[tmp_path / "red.png"], prompts=["a cube"], out=tmp_path / "out", seeds=2)
    assert all(file.is_file() for file in files) and len(files) == 3


def test_settings_of_its_own(toy, tmp_path):
    cfg = load_config("toybox", ["policy.type=toy", "policy.gain=3"])
    assert isinstance(cfg.policy, ToySettings) and make_policy(cfg).gain == 3.0  # pyright: ignore
    assert override(cfg, ["policy.gain=4"]).policy.gain == 4.0  # pyright: ignore
    for setting, match in (("policy.gain=1", r"policy\.gain"), ("policy.gein=3", r"policy\.gein")):
        with pytest.raises(UserError, match=match):
            load_config("toybox", ["policy.type=toy", setting])
    with pytest.raises(UserError, match=r"policy\.gain"):
        load_config("toybox", ["policy.gain=3"])
    with pytest.raises(UserError, match="'toybx'; did you mean|'toybx'; choose one of flux, flux2, toy"):
        load_config("toybox", ["policy.type=toybx"])
    with pytest.raises(UserError, match=r"policy\.type = toy"):
        family_of(cfg.policy).make_encoder(cfg.policy, tmp_path, torch.device("cpu"))
