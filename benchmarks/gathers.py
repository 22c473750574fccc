"""How often two processes gather a sharded base's blocks in one iteration: steps mixed in a forward, and apart.

    torchrun --standalone --nproc_per_node 2 benchmarks/gathers.py [--set key=value]...

A micro-batch takes any pairs of a sample and a step, each with its own noise level. Trainers that replay one step after
another make at least one forward and backward per step, and each gathers all blocks twice. Both ways train the same
pairs with the same memory.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cgrpo.build import make_policy, make_source
from cgrpo.config import load_config
from cgrpo.rewards import make_rewards
from cgrpo.training.grpo.loop import GRPO
from cgrpo.training.grpo.settings import GrpoConfig
from cgrpo.training.loop import MicroBatch
from cgrpo.training.runtime import Runtime

# The paper's iteration on one GPU: a group of 12, 25 steps, 60 % trained, 3 updates, micro-batches of 4.
PAPER = (
    "training.parallel=fsdp2", "training.prompts_per_iteration=2", "training.updates_per_rollout=3",
    "training.micro_batch=4", "training.iterations=1", "sampling.steps=25", "sampling.batch=12",
)  # fmt: skip


class Gathers(TorchDispatchMode):
    """Counts all-gathers into one tensor: FSDP2's, a block's parameters each."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += "allgather_base" in str(func)
        return func(*args, **(kwargs or {}))


class Apart(GRPO):
    """Replays step after step: a micro-batch has pairs of one step."""

    def micro_batches(self, *arguments) -> list[MicroBatch]:
        work = []
        for whole in self.whole(*arguments):
            part, index_M = whole.part, whole.index_B
            step_M = part.step_M[index_M]
            for step in step_M.unique():
                mine = (step_M == step).nonzero()[:, 0]
                _, counts = part.input_M[index_M[mine]].unique_consecutive(return_counts=True)
                runs = counts.split(int(self.cfg.training.micro_batch))
                rows = mine.split([int(run.sum()) for run in runs])
                work += [
                    whole._replace(index_B=index_M[row], credit_B=whole.credit_B[row], counts=run.tolist())
                    for row, run in zip(rows, runs, strict=True)
                ]
        idle = work[0]._replace(
            index_B=torch.zeros(1, dtype=torch.long), credit_B=torch.zeros(1), weight=0.0, counts=[1]
        )
        return work + [idle] * (self.runtime.largest(len(work)) - len(work))

    def whole(self, *arguments) -> list[MicroBatch]:
        """An update's pairs, a micro-batch per part."""
        cfg = self.cfg
        self.cfg = cfg.model_copy(update={"training": cfg.training.model_copy(update={"micro_batch": 10**6})})
        try:
            return [micro for micro in super().micro_batches(*arguments) if micro.weight]
        finally:
            self.cfg = cfg


def gathers(kind: type[GRPO], cfg: GrpoConfig, runtime: Runtime) -> tuple[int, int, float]:
    """All-gathers of the rollout and of the update, and the sum of the update's gradient norms."""
    policy = make_policy(cfg, runtime.device, spread=True)
    policy.shard(runtime.shard)
    trainer, rollout = kind(cfg, policy, make_rewards(cfg.rewards), make_source(cfg), runtime), []
    with Gathers() as counted:

        def score(*arguments, scoring=trainer.scoring) -> Tensor:
            rollout.append(counted.count)
            return scoring(*arguments)

        score.begin, score.numbers = trainer.scoring.begin, trainer.scoring.numbers  # type: ignore[attr-defined]
        with patch.object(trainer, "scoring", score):
            (done,) = trainer.run(0)
    return rollout[0], counted.count - rollout[0], done.metrics["gradient_norm"]


def main(settings: Sequence[str]) -> None:
    cfg = load_config("toybox", [*PAPER, *settings])
    assert isinstance(cfg, GrpoConfig)
    runtime = Runtime()
    for name, kind in {"mixed": GRPO, "apart": Apart}.items():
        rollout, update, norm = gathers(kind, cfg, runtime)
        if runtime.is_main:
            print(f"steps {name}: {rollout} all-gathers in the rollout, {update} in the update; gradient {norm:.6g}")
    runtime.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--set", dest="settings", action="append", default=[])
    main(parser.parse_args().settings)
