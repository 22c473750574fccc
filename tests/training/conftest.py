import json
from pathlib import Path

import pytest
from PIL import Image

from cgrpo.config import Config, load_config

REWARDS = str(Path(__file__).parent)

# Small and quick: 2 prompts x 4 samples (or 2 pairs), 4 steps, exact rewards, no evaluation.
COMMON = (
    "training.iterations=3",
    "training.micro_batch=5",
    "training.checkpoint_every=1",
    "sampling.steps=4",
    "policy.rank=4",
    "rewards.identity.type=exact_rewards:brightness",
    "rewards.prompt.type=exact_rewards:redness",
    "evaluation.enabled=false",
    "logging.tracker=none",
)
SMALL = (*COMMON, "training.prompts_per_iteration=2", "training.group_size=4")


@pytest.fixture
def manifest(tmp_path) -> str:
    """Five tasks with references of two sizes; one task has two of them, two have the same one."""
    for number, size in enumerate([(32, 32), (32, 16), (32, 32)]):
        Image.effect_noise(size, 60 + 20 * number).convert("RGB").save(tmp_path / f"{number}.png")
    references = [["0.png"], ["1.png"], ["2.png"], ["0.png", "2.png"], ["1.png"]]
    table = [{"prompt": "a toy at night", "subject": "toy", "references": names} for names in references]
    (tmp_path / "tasks.json").write_text(json.dumps(table))
    return str(tmp_path / "tasks.json")


@pytest.fixture
def small(monkeypatch):
    """``small(*settings)`` -> the small configuration with settings on top."""
    monkeypatch.syspath_prepend(REWARDS)

    def make(*settings: str) -> Config:
        return load_config("toybox", (*SMALL, *settings))

    return make


@pytest.fixture
def small_forward(monkeypatch):
    """The same on the forward process: 3 steps a rollout."""
    monkeypatch.syspath_prepend(REWARDS)

    def make(*settings: str) -> Config:
        return load_config("toybox", (*SMALL, "method=forward", "sampling.rollout_steps=3", *settings))

    return make


@pytest.fixture
def small_sft(monkeypatch):
    """The same for supervised fine-tuning."""
    monkeypatch.syspath_prepend(REWARDS)

    def make(*settings: str) -> Config:
        return load_config("sft", (*COMMON, "supervised.batch=2", *settings))

    return make


@pytest.fixture
def small_arguments(monkeypatch):
    """The same as command-line arguments, here and in subprocesses."""
    monkeypatch.syspath_prepend(REWARDS)
    monkeypatch.setenv("PYTHONPATH", REWARDS, prepend=":")
    return [part for setting in SMALL for part in ("--set", setting)]
