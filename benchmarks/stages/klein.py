"""FLUX.2-klein-4B's transformer at real size with random weights: a rollout step and a replay step, with and without
guidance, by what gradients go through."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch

from cgrpo.config import load_config
from cgrpo.policies.flux2.policy import Flux2Condition, Flux2Policy
from cgrpo.policies.memory import set_checkpointing
from cgrpo.policies.settings import Checkpointing, GuidanceGradient
from stages.harness import Row, cuda, device, measure, stage

REAL: dict[str, Any] = {
    "num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "attention_head_dim": 128,
    "joint_attention_dim": 7680, "guidance_embeds": False,
}  # fmt: skip
TINY = REAL | {
    "num_layers": 1, "num_single_layers": 2, "num_attention_heads": 2, "attention_head_dim": 32,
    "joint_attention_dim": 64, "axes_dims_rope": (8, 8, 8, 8),
}  # fmt: skip


# Checkpointing, micro-batch, which half of the guidance gradients go through, and its scale.
REPLAYED: tuple[tuple[Checkpointing, int, GuidanceGradient, float], ...] = (
    ("full", 1, "conditional", 4.0),
    ("off", 1, "both", 4.0),
    ("full", 4, "both", 1.0),
    ("full", 4, "both", 4.0),
    ("full", 4, "conditional", 4.0),
)


def build(tiny: bool) -> Flux2Policy:
    """bfloat16 base, float32 adapter."""
    from diffusers import Flux2Transformer2DModel

    settings = load_config("klein").policy
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device()):
        transformer = Flux2Transformer2DModel(**(TINY if tiny else REAL))
    torch.set_default_dtype(torch.float32)
    side = 32 if tiny else settings.height
    settings = settings.model_copy(update={"height": side, "width": side, "reference_size": side})
    policy = Flux2Policy(transformer, None, None, settings)
    policy.add_adapter(8 if tiny else settings.rank, seed=0)
    return policy


def random_condition(policy: Flux2Policy, count: int, scale: float) -> Flux2Condition:
    """One reference of the picture's own size; random text."""
    config, rows = policy.transformer.config, policy.height // 8
    tokens = 512 if config["num_layers"] == REAL["num_layers"] else 16
    text_NLC = torch.randn(count + 1, tokens, config["joint_attention_dim"], device=policy.device)
    latent_NCHW = torch.randn(count, config["in_channels"] // 4, rows, rows, device=policy.device)
    return policy.condition(text_NLC[1:], [latent_NCHW], scale, text_NLC[0] if scale != 1 else None)


def figures(tiny: bool) -> Iterator[Row]:
    policy = build(tiny)
    if cuda():
        yield {"figure": "model", "allocated_gib": torch.cuda.memory_allocated() / 2**30}
    for batch, scale in ((1, 1.0), (1, 4.0), (4, 4.0), (12, 1.0), (12, 4.0)):
        work = functools.partial(rollout_step, policy, batch, scale)
        yield {"figure": "rollout step", "batch": batch, "guidance": scale, **measure(work)}
    for mode, micro, gradient, scale in REPLAYED:
        set_checkpointing(policy.transformer, mode)
        policy.settings = policy.settings.model_copy(update={"guidance_gradient": gradient})
        work = functools.partial(replay_step, policy, micro, scale)
        about = {"figure": "replay step", "micro_batch": micro, "checkpointing": mode, "guidance": scale}
        yield {**about, "gradient": gradient, **measure(work, 2)}


@torch.no_grad()
def rollout_step(policy: Flux2Policy, batch: int, scale: float) -> None:
    x_NLC = torch.randn(batch, *policy.latent_shape, device=policy.device)
    sigma_N = torch.full((batch,), 0.5, device=policy.device)
    policy.velocity(x_NLC, sigma_N, random_condition(policy, batch, scale))


def replay_step(policy: Flux2Policy, micro: int, scale: float) -> None:
    x_NLC = torch.randn(micro, *policy.latent_shape, device=policy.device)
    sigma_N = torch.full((micro,), 0.5, device=policy.device)
    policy.velocity(x_NLC, sigma_N, random_condition(policy, micro, scale)).square().mean().backward()


if __name__ == "__main__":
    stage("klein", figures)
