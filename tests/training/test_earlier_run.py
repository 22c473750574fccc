"""A run that an earlier version began is taken up from its checkpoint, bit for bit, and is then written as today."""

from __future__ import annotations

import json

import torch
from safetensors.torch import load_file

from cgrpo.app.main import main
from cgrpo.app.run import train
from cgrpo.config import load_config, moved
from cgrpo.training.checkpoint import config_fingerprint


def age(run) -> None:
    """Write ``run``'s configuration and checkpoint marks as an earlier version did: every method's settings."""
    table = json.loads((run / "config.json").read_text())
    table |= {"supervised": {"batch": 9}}
    table["training"] |= table.pop("objective")
    (run / "config.json").write_text(json.dumps(table, indent=2))
    for file in run.glob("checkpoints/*/index.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"config": config_fingerprint(table)}))


def test_an_earlier_versions_run_goes_on_bit_for_bit(small, tmp_path, capfd):
    whole = train(small(), tmp_path / "whole")
    run = train(small("training.iterations=2"), tmp_path / "run")
    moved.say.cache_clear()  # what is said once in a process
    age(run)
    assert main(["train", "--resume", str(run), "--set", "objective.kl=0.1"]) == 2
    renamed, refused = [line for line in capfd.readouterr().err.splitlines() if line.startswith("cgrpo: ")]
    assert "training.clip to objective.clip" in renamed and "another configuration" in refused
    assert main(["train", "--resume", str(run), "--set", "training.iterations=3"]) == 0
    for name in ("adapter/pytorch_lora_weights.safetensors", "checkpoints/step-3/state.safetensors"):
        one, two = load_file(run / name), load_file(whole / name)
        assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    assert (run / "config.json").read_text() == (whole / "config.json").read_text()
    marks = {json.loads(file.read_text())["config"] for file in run.glob("checkpoints/*/index.json")}
    assert marks == {config_fingerprint(json.loads((whole / "config.json").read_text()))}


def test_a_fingerprint_holds_what_the_numbers_depend_on_and_no_more():
    def mark(*settings: str, recipe: str = "toybox") -> str:
        return config_fingerprint(load_config(recipe, settings).model_dump(mode="json"))

    assert mark() != mark("shaping.alpha=0.4") != mark("objective.kl=0.1")
    assert mark("training.kl=0.1") == mark("objective.kl=0.1")
    free = ("training.iterations=7", "guard.every=3", "policy.offload=true", "rewards.prompt.chunk=2")
    constant = "training.schedule=constant"  # a falling learning rate depends on the length
    assert mark(constant) == mark(constant, *free)
    assert mark() == mark(*free[1:]) != mark(free[0])
    assert mark(recipe="sft") != mark()
