from pathlib import Path

import pytest

from cgrpo.config import Config, load_config

REWARDS = str(Path(__file__).parent)

# Small and quick: 2 prompts x 4 samples, 4 steps, exact rewards, no evaluation.
SMALL = (
    "training.iterations=3",
    "training.prompts_per_iteration=2",
    "training.group_size=4",
    "training.micro_batch=5",
    "training.checkpoint_every=1",
    "sampling.steps=4",
    "policy.rank=4",
    "rewards.identity.type=exact_rewards:brightness",
    "rewards.prompt.type=exact_rewards:redness",
    "evaluation.enabled=false",
    "logging.tracker=none",
)


@pytest.fixture
def small(monkeypatch):
    """``small(*settings)`` -> the small configuration with settings on top."""
    monkeypatch.syspath_prepend(REWARDS)

    def make(*settings: str) -> Config:
        return load_config("toybox", (*SMALL, *settings))

    return make


@pytest.fixture
def small_arguments(monkeypatch):
    """The same as command-line arguments, here and in subprocesses."""
    monkeypatch.syspath_prepend(REWARDS)
    monkeypatch.setenv("PYTHONPATH", REWARDS, prepend=":")
    return [part for setting in SMALL for part in ("--set", setting)]
