"""The transformer alone: a rollout step, a replay step (forward, backward), the optimizer; then an iteration of the
trainer at T = 5, which by its parts says what T = 25 costs."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch

from cgrpo.policies.memory import set_checkpointing
from cgrpo.policies.settings import Checkpointing
from cgrpo.rewards import Reward
from cgrpo.training.grpo.loop import GRPO
from cgrpo.training.runtime import Runtime
from stages.harness import Row, cuda, measure, stage
from stages.model import RandomReward, RandomSource, TensorPolicy, build, config

MODES: tuple[Checkpointing, ...] = ("full", "selective", "off")


def figures(tiny: bool) -> Iterator[Row]:
    policy = build(tiny)
    if cuda():
        yield {"figure": "model", "allocated_gib": torch.cuda.memory_allocated() / 2**30}
    for batch in (1, 4, 12):
        yield {"figure": "rollout step", "batch": batch, **measure(functools.partial(rollout_step, policy, batch))}
    replayed: list[tuple[Checkpointing, int]] = [(mode, n) for n in ((2,) if tiny else (1, 2, 4)) for mode in MODES]
    for mode, micro in replayed:
        set_checkpointing(policy.transformer, mode)
        work = functools.partial(replay_step, policy, micro)
        yield {"figure": "replay step", "micro_batch": micro, "checkpointing": mode, **measure(work, 2)}
    yield {"figure": "optimizer step", **measure(optimizer_step(policy), 3)}
    set_checkpointing(policy.transformer, "full")
    yield from iteration(policy, tiny, "full", 4, "sampling.steps=5")


@torch.no_grad()
def rollout_step(policy: TensorPolicy, batch: int) -> None:
    x_NLC = torch.randn(batch, *policy.latent_shape, device=policy.device)
    policy.velocity(x_NLC, torch.full((batch,), 0.5, device=policy.device), policy.random_condition(batch))


def replay_step(policy: TensorPolicy, micro: int) -> None:
    x_NLC = torch.randn(micro, *policy.latent_shape, device=policy.device)
    sigma_N = torch.full((micro,), 0.5, device=policy.device)
    policy.velocity(x_NLC, sigma_N, policy.random_condition(micro)).square().mean().backward()


def optimizer_step(policy: TensorPolicy):
    parameters = list(policy.trainable_parameters().values())
    optimizer = torch.optim.AdamW(parameters, lr=1e-9)

    def step() -> None:
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def iteration(policy: TensorPolicy, tiny: bool, mode: Checkpointing, micro: int, *settings: str) -> Iterator[Row]:
    """One whole iteration of the trainer, decode and rewards left out."""
    set_checkpointing(policy.transformer, mode)
    cfg = config(tiny, f"training.micro_batch={micro}", "training.iterations=1", *settings)
    runtime = Runtime()
    rewards: dict[str, Reward] = {"identity": RandomReward(), "prompt": RandomReward()}
    if cuda():
        torch.cuda.empty_cache()
    about = {"figure": "iteration", "checkpointing": mode, "micro_batch": micro, "sampling_batch": cfg.sampling.batch}
    about |= {"steps": cfg.sampling.steps, "group": cfg.training.group_size}
    try:
        (done,) = GRPO(cfg, policy, rewards, RandomSource(), runtime).run(0)
    except torch.OutOfMemoryError:
        yield about | {"out_of_memory": True}
        return
    seconds = {key.replace("/", "_"): value for key, value in done.metrics.items() if key.startswith("seconds/")}
    yield about | seconds | {"drift": done.metrics["ratio_drift"], "peak_gib": done.metrics.get("memory/peak_gib")}


if __name__ == "__main__":
    stage("flux", figures)
