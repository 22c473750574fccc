"""The same transformer with its blocks compiled (inductor); what compiling itself takes is a figure of its own,
and so is an iteration's drift of the ratio before the first update."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator

from cgrpo.policies.memory import set_checkpointing
from stages.flux import iteration, replay_step, rollout_step
from stages.harness import Row, measure, stage, synchronise
from stages.model import build


def figures(tiny: bool) -> Iterator[Row]:
    policy = build(tiny)
    policy.compile("eager" if tiny else "inductor")  # inductor wants a C++ compiler on a CPU
    start = time.perf_counter()
    rollout_step(policy, 12)
    synchronise()
    yield {"figure": "compile the rollout", "batch": 12, "seconds": time.perf_counter() - start}
    yield {"figure": "rollout step", "batch": 12, **measure(functools.partial(rollout_step, policy, 12))}
    set_checkpointing(policy.transformer, "off")
    start = time.perf_counter()
    replay_step(policy, 1)
    synchronise()
    yield {"figure": "compile the replay", "micro_batch": 1, "seconds": time.perf_counter() - start}
    work = functools.partial(replay_step, policy, 1)
    yield {"figure": "replay step", "micro_batch": 1, "checkpointing": "off", **measure(work, 3)}
    yield from iteration(policy, tiny, "off", 1, "sampling.steps=5")  # for its drift: rollout and replay differ


if __name__ == "__main__":
    stage("compiled", figures)
