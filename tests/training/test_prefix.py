"""A prefix that a group shares is evaluated and differentiated once, and changes no gradient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.transformers import transformer_qwenimage21
from support import stock21, tiny_qwen21
from support.policies import shake
from support.runs import referenced_run, referenced_tasks
from torch import Tensor

from cgrpo.build import make_source
from cgrpo.config import load_config
from cgrpo.policies.flux.policy import FluxPolicy
from cgrpo.policies.flux2.policy import Flux2Policy
from cgrpo.policies.prefix import differentiated_once
from cgrpo.policies.qwen21.policy import Qwen21Policy
from cgrpo.policies.qwen_edit.policy import QwenEditPolicy
from cgrpo.rewards import make_rewards
from cgrpo.training.loop import GroupLoop, make_loop
from cgrpo.training.runtime import Runtime


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """qwen21/ and tasks.json: a task with two references, two with one."""
    folder = tmp_path_factory.mktemp("prefix")
    tiny_qwen21.build_folder(folder / "qwen21")
    referenced_tasks(folder, ["0.png", "1.png"], ["1.png"], ["0.png"])
    return folder


def first_gradient(kind: type[Qwen21Policy], world: Path, recipe: str, *more: str) -> dict[str, Tensor]:
    """The first update's, by parameter."""
    settings = referenced_run(
        world / "qwen21", "policy.width=64", "policy.reference_rule=qwen", "sampling.shift=qwen",
        "training.prompts_per_iteration=3", "training.updates_per_rollout=1", "training.micro_batch=3",
        "objective.kl=0.1", *more,
    )  # fmt: skip
    cfg: Any = load_config(recipe, settings)
    read = kind.from_checkpoint(cfg.policy)
    policy = stock21.exact(read) if cfg.policy.dtype == "float64" else read
    policy.add_adapter(2, 0)
    shake(policy, 1)
    loop = make_loop(cfg, policy, make_rewards(cfg.rewards), make_source(cfg), Runtime())
    assert isinstance(loop, GroupLoop)
    found: dict[str, Tensor] = {}

    def step(*accepts: Any) -> float:
        found.update({name: p.grad.clone() for name, p in policy.trainable_parameters().items() if p.grad is not None})
        raise ZeroDivisionError

    loop.step = step  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ZeroDivisionError):
        next(loop.run(0))
    return found


GRPO = ("qwen21-24gb",)
FORWARD = ("klein-forward", "policy.guidance_gradient=both", "objective.levels=2")
GUIDED = ("qwen21-24gb", "policy.guidance=3.0")
CASES = {
    "grpo": (GRPO, "float64", 1e-10),
    "grpo, float32": (GRPO, "float32", 1e-4),
    "grpo, guided": (GUIDED, "float64", 1e-10),
    "grpo, guided, one gradient": ((*GUIDED, "policy.guidance_gradient=conditional"), "float64", 1e-10),
    "forward": ((*FORWARD, "policy.guidance=1.0"), "float64", 1e-10),
}


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_the_plain_loop(case: str, world: Path, monkeypatch) -> None:
    """Which takes every pair, and every sample at every step, through the stock forward with its whole sequence."""
    (recipe, *settings), dtype, bound = CASES[case]
    if dtype == "float64":
        monkeypatch.setattr(transformer_qwenimage21, "apply_rotary_emb_qwen", stock21.exact_rotary)
    shared, plain = (
        first_gradient(kind, world, recipe, *settings, f"policy.dtype={dtype}", "policy.checkpointing=off")
        for kind in (Qwen21Policy, stock21.Alone)
    )
    assert shared.keys() == plain.keys() and len(plain) == 2 * 2 * 4
    largest = max(value.abs().max() for value in plain.values())
    for name, value in plain.items():
        assert (shared[name] - value).abs().max() <= bound * largest, name
    assert all(value.any() for value in plain.values())


def test_checkpointing_changes_nothing_and_twice_is_the_same(world: Path) -> None:
    settings = ("qwen21-24gb", "policy.dtype=float32")
    modes = ("off", "off", "full", "selective")
    off, *others = (first_gradient(Qwen21Policy, world, *settings, f"policy.checkpointing={mode}") for mode in modes)
    for other in others:
        assert all(torch.equal(other[name], value) for name, value in off.items())


def test_the_prefix_is_evaluated_once(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Per prompt in the rollout, in the update, and for the reference policy."""
    calls = []
    evaluate = Qwen21Policy.keys_and_values
    monkeypatch.setattr(
        Qwen21Policy, "keys_and_values", lambda *given: calls.append(torch.is_grad_enabled()) or evaluate(*given)
    )
    first_gradient(Qwen21Policy, world, "qwen21-24gb", "policy.dtype=float32")
    assert calls == [False] * 3 + [False, True] * 3


def test_only_a_causal_prefix_is_shared() -> None:
    """In the other families keys and values of references and text depend on the picture: nothing can be shared."""
    assert Qwen21Policy.has_prefix
    assert not any(kind.has_prefix for kind in (FluxPolicy, Flux2Policy, QwenEditPolicy))


def test_one_backward_takes_the_sum() -> None:
    """In float32 or better, of those leaves that were used; none where an exception leaves."""
    weight = torch.tensor([2.0, 3.0], dtype=torch.bfloat16, requires_grad=True)
    with differentiated_once([weight * 1, weight**2, weight.detach()]) as (one, two, fixed):
        for _ in range(300):
            (one.sum() * 1.0).backward()
        assert one.grad is None and two.requires_grad and not fixed.requires_grad and weight.grad is None
    assert weight.grad is not None and weight.grad.tolist() == [300, 300]  # bfloat16 would have stopped at 256
    with pytest.raises(ZeroDivisionError), differentiated_once([weight * 1]) as (one,):
        one.sum().backward()
        raise ZeroDivisionError
    assert weight.grad.tolist() == [300, 300]
