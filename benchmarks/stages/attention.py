"""The same transformer by other ways of computing attention; those that don't work here say why."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch

from cgrpo.errors import UserError
from cgrpo.policies.memory import set_attention
from cgrpo.policies.settings import Attention
from stages.flux import replay_step, rollout_step
from stages.harness import Row, measure, stage
from stages.model import build

WAYS: tuple[Attention, ...] = ("flash-attn-3", "cudnn", "flash", "efficient", "flash-attn-2")


def figures(tiny: bool) -> Iterator[Row]:
    policy = build(tiny)
    for name in ("math", *WAYS) if tiny else WAYS:
        try:
            set_attention(policy.transformer, name, policy.device, torch.bfloat16)
        except UserError as error:
            yield {"figure": "not usable", "attention": name, "why": str(error)[:300]}
            continue
        rollout = measure(functools.partial(rollout_step, policy, 12))
        yield {"figure": "rollout step", "batch": 12, "attention": name, **rollout}
        replay = measure(functools.partial(replay_step, policy, 4), 2)
        yield {"figure": "replay step", "micro_batch": 4, "checkpointing": "full", "attention": name, **replay}


if __name__ == "__main__":
    stage("attention", figures)
