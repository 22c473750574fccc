"""A family that is one file in the tests trains, is watched, evaluated, sampled from and resumed like any other."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from toy_policy import ToyPolicy

from cgrpo.build import make_source, make_trainer
from cgrpo.commands.sample import sample
from cgrpo.commands.train import train
from cgrpo.rewards import make_rewards
from cgrpo.training.runtime import Runtime


def make(cfg, device="cpu", adapter=None, *, spread=False, called=""):
    policy = ToyPolicy()
    if adapter is not None:
        policy.delta.weight.data = load_file(adapter / "toy.safetensors")["delta"]
    return policy


@pytest.fixture
def toy(monkeypatch):
    """``build.make_policy`` makes the toy: where a second family's line would stand."""
    monkeypatch.setattr("cgrpo.commands.train.make_policy", make)
    monkeypatch.setattr("cgrpo.commands.sample.make_policy", make)


def test_trained_by_grpo(small):
    cfg = small("training.iterations=2", "training.learning_rate=0.02", "objective.kl=0.01")
    policy = ToyPolicy()
    rows = [
        done.metrics
        for done in make_trainer(cfg, policy, make_rewards(cfg.rewards), make_source(cfg), Runtime()).run(0)
    ]
    assert len(rows) == 2 and policy.delta.weight.any()
    assert all(row["gradient_norm"] > 0 and row["ratio_drift"] < 1e-4 for row in rows)
    assert all(row["kl"] > 0 for row in rows)


def test_a_whole_run(small, toy, tmp_path):
    settings = ["training.iterations=2", "evaluation.enabled=true", "evaluation.subjects=2", "guard.every=1"]
    settings += ["evaluation.prompts_per_subject=2", "guard.tasks=4", "training.learning_rate=0.02"]
    whole, half = tmp_path / "whole", tmp_path / "half"
    cfg = small(*settings)
    train(cfg, whole)
    train(small(*settings, "training.iterations=1"), half)
    train(cfg, resume=half)
    (one, other) = (load_file(run / "adapter" / "toy.safetensors")["delta"] for run in (whole, half))
    assert one.any() and torch.equal(one, other)
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["guard"]["checks"] == 2 and summary["metrics"]["prompt"]["difference"] != 0
    Image.new("RGB", (32, 32), "red").save(tmp_path / "red.png")
    files = sample(whole, [tmp_path / "red.png"], ["a cube"], tmp_path / "out", seeds=2)
    assert all(file.is_file() for file in files) and len(files) == 3
