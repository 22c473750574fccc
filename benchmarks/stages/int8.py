"""The same transformer with its blocks in int8."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch

from stages.flux import replay_step, rollout_step
from stages.harness import Row, cuda, measure, stage
from stages.model import build


def figures(tiny: bool) -> Iterator[Row]:
    policy = build(tiny, quantise=True)
    if cuda():
        yield {"figure": "model", "allocated_gib": torch.cuda.memory_allocated() / 2**30}
    for batch in (1, 12):
        yield {"figure": "rollout step", "batch": batch, **measure(functools.partial(rollout_step, policy, batch))}
    for micro in (1, 4):
        work = functools.partial(replay_step, policy, micro)
        yield {"figure": "replay step", "micro_batch": micro, "checkpointing": "full", **measure(work, 2)}


if __name__ == "__main__":
    stage("int8", figures)
