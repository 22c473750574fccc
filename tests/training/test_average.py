"""Averaged weights and the learning rate over a run: what is shown, saved, guarded and resumed."""

import json

import pytest
import torch
from safetensors.torch import load_file
from support.policies import read_adapter
from support.runs import GUARDED, JUDGED, distance, in_processes, interrupted, state

from cgrpo.algorithm import average_decay
from cgrpo.app import run as command
from cgrpo.app.run import train
from cgrpo.errors import UserError
from cgrpo.policies.adapters.layers import adapter_state

AVERAGE = "training.average=0.6"


def weights(tensors, what):
    return {key.removeprefix(what): value for key, value in tensors.items() if key.startswith(what)}


def test_the_average_is_that_of_the_weights_after_each_iteration(small, tmp_path):
    made = train(small(AVERAGE, "training.iterations=4", "training.keep_checkpoints=9"), tmp_path / "run")
    expected = None
    for count in range(1, 5):
        tensors = state(made, count)
        own, kept = weights(tensors, "adapter."), average_decay(count, 0.6)
        expected = own if expected is None else {k: kept * expected[k] + (1 - kept) * own[k] for k in own}
        found = weights(tensors, "state.average.")
        assert found.keys() == own.keys()
        assert all(torch.allclose(found[key], expected[key], atol=1e-7) for key in own)
    assert any(not torch.equal(found[key], own[key]) for key in own)


def test_the_average_is_what_is_saved_and_evaluated_and_the_raw_weights_train_on(small, tmp_path, monkeypatch):
    seen, finish = [], command.finish

    def watched(record, cfg, policy, *rest):
        seen.append({key: value.clone() for key, value in adapter_state(policy.transformer).items()})
        finish(record, cfg, policy, *rest)

    monkeypatch.setattr(command, "finish", watched)
    made, plain = train(small(AVERAGE), tmp_path / "average"), train(small(), tmp_path / "plain")
    with_average, without = state(made, 3), state(plain, 3)
    raw = weights(with_average, "adapter.")
    assert all(torch.equal(raw[key], value) for key, value in weights(without, "adapter.").items())
    assert not weights(without, "state.average.")
    saved, _ = read_adapter(made / "adapter")
    assert saved.keys() == seen[0].keys() and all(torch.equal(saved[key], seen[0][key]) for key in saved)
    average = torch.cat([value.flatten() for value in weights(with_average, "state.average.").values()])
    assert torch.equal(torch.cat([value.flatten() for value in saved.values()]).sort()[0], average.sort()[0])
    assert distance(made, plain) > 1e-5


def test_the_guard_checks_and_keeps_the_average(small, tmp_path):
    settings = (*GUARDED, *JUDGED, "training.learning_rate=0.01", "training.keep_checkpoints=9")
    made, plain = train(small(*settings, AVERAGE), tmp_path / "average"), train(small(*settings), tmp_path / "plain")
    rows = [[json.loads(line) for line in (f / "guard.jsonl").read_text().splitlines()] for f in (made, plain)]
    assert rows[0][0] == rows[1][0]  # the first average is the first position
    assert rows[0][1]["metrics"] != rows[1][1]["metrics"]
    best = [row["iteration"] for row in rows[0] if row["best"]][-1]
    kept = load_file(made / "best" / "pytorch_lora_weights.safetensors")
    average = torch.cat([value.flatten() for value in weights(state(made, best), "state.average.").values()])
    flat = torch.cat([value.flatten() for value in read_adapter(made / "best")[0].values()])
    assert len(kept) > 0 and torch.equal(flat.sort()[0], average.sort()[0])


@pytest.mark.parametrize("method", ["grpo", "sft"])
def test_resumed_is_uninterrupted_with_an_average_and_a_falling_learning_rate(
    small, small_sft, tmp_path, method, monkeypatch
):
    make = small if method == "grpo" else small_sft
    settings = (
        AVERAGE,
        "training.schedule=cosine",
        "training.warmup=1",
        "training.iterations=4",
        "training.checkpoint_every=2",
    )
    whole = train(make(*settings), tmp_path / "whole")
    interrupted(monkeypatch, 4, lambda: train(make(*settings), tmp_path / "part"))
    again = train(make(*settings), resume=tmp_path / "part")
    assert distance(whole, again) == 0
    states = state(whole, 4), state(again, 4)
    assert states[0].keys() == states[1].keys() and weights(states[0], "state.average.")
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_two_processes_average_as_one(small, small_arguments, tmp_path):
    settings = ("policy.dtype=float64", AVERAGE, "training.schedule=linear")
    one = train(small(*settings), tmp_path / "one")
    given = [part for setting in settings for part in ("--set", setting)]
    two = in_processes(2, "none", "train", *small_arguments, *given, "--out", str(tmp_path / "two"))
    assert two.returncode == 0, two.stderr
    assert distance(one, tmp_path / "two") <= 1e-8


def test_the_learning_rate_follows_its_schedule(small, tmp_path):
    """A step of AdamW scales with it: the first update of a warm-up of 3 is a quarter of the full one."""
    full, rising = train(small("training.iterations=1"), tmp_path / "a"), None
    rising = train(small("training.iterations=1", "training.warmup=3"), tmp_path / "b")
    up = [
        {key: value for key, value in weights(state(folder, 1), "adapter.").items() if "lora_B" in key}
        for folder in (full, rising)
    ]
    biggest = [max(value.abs().max().item() for value in part.values()) for part in up]
    assert biggest[1] == pytest.approx(biggest[0] / 4, rel=0.1)


def test_a_run_whose_learning_rate_falls_keeps_its_length(small, tmp_path):
    made = train(small("training.schedule=linear"), tmp_path / "run")
    with pytest.raises(UserError, match="training.iterations was 3 and is 5 now.*linear"):
        train(small("training.schedule=linear", "training.iterations=5"), resume=made)


@pytest.mark.parametrize("setting", ["average=1.0", "average=-0.1", "warmup=-1", "schedule=step"])
def test_settings_out_of_range_are_refused(small, setting):
    with pytest.raises(UserError, match=f"training.{setting.partition('=')[0]}"):
        small(f"training.{setting}")
