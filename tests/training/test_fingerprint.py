"""What a run's checkpoints are held to."""

from __future__ import annotations

from cgrpo.config import load_config
from cgrpo.training.checkpoint import config_fingerprint


def test_a_fingerprint_holds_what_the_numbers_depend_on_and_no_more():
    def mark(*settings: str, recipe: str = "toybox") -> str:
        return config_fingerprint(load_config(recipe, settings).model_dump(mode="json"))

    assert mark() != mark("shaping.alpha=0.4") != mark("objective.kl=0.1")
    free = ("training.iterations=7", "guard.every=3", "policy.offload=true", "rewards.prompt.chunk=2")
    constant = "training.schedule=constant"  # a falling learning rate depends on the length
    assert mark(constant) == mark(constant, *free)
    assert mark() == mark(*free[1:]) != mark(free[0])
    assert mark(recipe="sft") != mark()
