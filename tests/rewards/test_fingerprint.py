"""A reward's fingerprint changes with whatever changes its scores, and with nothing else."""

from __future__ import annotations

import torch

from cgrpo.rewards import FunctionReward, make_reward
from cgrpo.rewards.clip import ClipSettings
from cgrpo.rewards.dino import DinoSegSettings
from cgrpo.rewards.fingerprint import reward_fingerprint
from cgrpo.rewards.vlm import VlmSettings


def mean(pictures, batch):
    return [0.0] * len(pictures)


def other(pictures, batch):
    return [0.0] * len(pictures)


def test_weights_and_settings_count_and_speed_does_not():
    made = make_reward("identity", DinoSegSettings())
    fingerprint = reward_fingerprint(made)
    assert fingerprint == reward_fingerprint(make_reward("identity", DinoSegSettings(chunk=3)))
    assert fingerprint != reward_fingerprint(make_reward("identity", DinoSegSettings(masks="reference")))
    assert fingerprint != reward_fingerprint(make_reward("prompt", ClipSettings()))

    made.segmenter.min_share *= 2  # pyright: ignore
    assert fingerprint != reward_fingerprint(made)
    made.segmenter.min_share /= 2  # pyright: ignore
    assert fingerprint == reward_fingerprint(made)
    for module in (made.encoder.model, made.segmenter.model):  # pyright: ignore
        parameter = next(module.parameters())
        kept = parameter.data.clone()
        parameter.data.add_(0.1)
        assert fingerprint != reward_fingerprint(made)
        parameter.data = kept
        assert fingerprint == reward_fingerprint(made)
    made.encoder.model.to(torch.bfloat16)  # pyright: ignore
    assert fingerprint != reward_fingerprint(made)


def test_using_a_reward_does_not_change_its_fingerprint():
    made = make_reward("prompt", ClipSettings())
    fingerprint = reward_fingerprint(made)
    from cgrpo.data import ToyboxSource

    source = ToyboxSource(0, "validation", 0.0, 1)
    made(source.oracle(range(2)), source.batch(range(2)))
    assert reward_fingerprint(made) == fingerprint


def test_a_judge_is_its_model_and_not_its_budget(tmp_path):
    def fingerprint(**settings) -> str:
        plain = {"task": "prompt", "model": "m", "key_variable": "", "cache": str(tmp_path / "cache")}
        return reward_fingerprint(make_reward("prompt", VlmSettings(**plain | settings)))

    assert fingerprint() == fingerprint(token_budget=9, cache="", attempts=2, timeout=3, concurrency=2)
    assert (
        len(
            {
                fingerprint(),
                fingerprint(model="n"),
                fingerprint(temperature=0.5),
                fingerprint(task="identity"),
                fingerprint(max_tokens=9),
            }
        )
        == 5
    )


def test_a_function_is_its_name_and_its_file(tmp_path, monkeypatch):
    assert reward_fingerprint(FunctionReward(mean, "prompt")) == reward_fingerprint(FunctionReward(mean, "prompt"))
    assert reward_fingerprint(FunctionReward(mean, "prompt")) != reward_fingerprint(FunctionReward(other, "prompt"))
    fingerprints = []
    for factor in ("1.0", "2.0"):
        (tmp_path / factor).mkdir()
        (tmp_path / factor / "mine.py").write_text(f"def score(pictures, batch):\n    return [{factor}]\n")
        scope: dict = {"__name__": "mine"}
        path = str(tmp_path / factor / "mine.py")
        exec(compile((tmp_path / factor / "mine.py").read_text(), path, "exec"), scope)
        fingerprints.append(reward_fingerprint(FunctionReward(scope["score"], "prompt")))
    assert fingerprints[0] != fingerprints[1]
