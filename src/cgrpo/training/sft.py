"""Supervised fine-tuning, the paper's baseline (Table 2): the flow-matching loss on reference-target pairs."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from cgrpo.algorithm import flow_matching_loss
from cgrpo.config import SftConfig
from cgrpo.data import Source, derive, task_indices
from cgrpo.policies.base import Policy
from cgrpo.rewards import Reward
from cgrpo.rewards.base import to_tensor
from cgrpo.training.average import Average
from cgrpo.training.optimizer import make_optimizer, set_learning_rate, step
from cgrpo.training.runtime import Runtime
from cgrpo.training.timer import Timer
from cgrpo.training.trainer import Iteration
from cgrpo.types import Condition


class SFT:
    """The trainer; the same face as ``GRPO``. Rewards are not looked at."""

    stopped = ""  # it never ends early by itself

    def __init__(self, cfg: SftConfig, policy: Policy, rewards: dict[str, Reward], source: Source, runtime: Runtime):
        self.cfg, self.policy, self.source, self.runtime = cfg, policy, source, runtime
        self.names = list(rewards)
        self.parameters = list(policy.trainable_parameters().values())
        self.optimizer = make_optimizer(cfg.training, self.parameters)
        self.average = Average(policy, cfg.training.average)
        self.positions = runtime.local(*cfg.share())

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps beside adapter and optimizer, to be written into when it is read."""
        return self.average.state("average")

    def run(self, first: int) -> Iterator[Iteration]:
        """Iterations ``first`` .. cfg.training.iterations - 1: one optimizer step each."""
        seed, count = self.cfg.training.seed, self.cfg.supervised.batch
        for number in range(first, self.cfg.training.iterations):
            timer = Timer()
            set_learning_rate(self.optimizer, self.cfg.training, number)
            tasks = task_indices(seed, number, count, self.source.size)
            with timer("encode"):
                batch, targets = self.source.pairs([tasks[position] for position in self.positions])
                x0_NLC = self.policy.encode_targets(targets).to(self.runtime.device)
                # With a sharded base all processes must make equally many forwards, whatever their pictures' sizes.
                alike = self.policy.alike(batch, 1 if self.runtime.sharded else self.cfg.training.micro_batch)
                conds = self.policy.encode_parts(batch, alike)
            with timer("update"):
                numbers = self._update(x0_NLC, list(zip(alike, conds, strict=True)), number)
                self.average.join(number + 1)
            nothing = {f"reward/{name}/{what}": math.nan for name in self.names for what in ("mean", "std")}
            numbers |= timer.seconds() | self.runtime.peak_memory()
            size = (self.cfg.policy.width, self.cfg.policy.height)  # what the policy is shown; targets are of any
            shown = to_tensor([picture if picture.size == size else picture.resize(size) for picture in targets])
            yield Iteration(number, nothing | numbers, batch, shown)

    def _update(self, x0_NLC: Tensor, parts: list[tuple[list[int], Condition]], number: int) -> dict[str, float]:
        streams = [derive(self.cfg.training.seed, "pair noise", number, position) for position in self.positions]
        noise_NLC = torch.stack([torch.randn(x0_NLC.shape[1:], generator=s) for s in streams]).to(x0_NLC)
        sigma_N = torch.sigmoid(torch.cat([torch.randn(1, generator=s) for s in streams])).to(x0_NLC)  # logit-normal
        total = 0.0
        for index, cond in parts:
            x0, noise, sigma = x0_NLC[index], noise_NLC[index], sigma_N[index]
            x = x0 + sigma[:, None, None] * (noise - x0)
            loss = flow_matching_loss(self.policy.velocity(x, sigma, cond), x0, noise).sum()
            (loss / self.cfg.supervised.batch).backward()
            total += loss.item()
        norm = step(self.optimizer, self.parameters, self.cfg.training, self.runtime)
        loss = self.runtime.gather(torch.tensor([total], device=self.runtime.device)).sum().item()
        return {"loss": loss / self.cfg.supervised.batch, "gradient_norm": norm}
