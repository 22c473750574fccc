"""Supervised fine-tuning, the paper's baseline (Table 2): the flow-matching loss on reference-target pairs."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from cgrpo.algorithm import flow_matching_loss
from cgrpo.training.loop import Iteration, PairLoop
from cgrpo.training.sft.settings import SftConfig
from cgrpo.types import Condition


class SFT(PairLoop[SftConfig]):
    """Targets, noise, one optimizer step per iteration; the rewards are not looked at."""

    def run(self, first: int) -> Iterator[Iteration]:
        """Iterations ``first`` .. cfg.training.iterations - 1: one optimizer step each."""
        for number in self.iterations(first):
            with self.timer("encode"):
                batch, targets = self.source.pairs(self.tasks(number))
                x0_NLC = self.policy.encode_targets(targets).to(self.runtime.device)
                parts = self.encode(batch, int(self.cfg.training.micro_batch))
            with self.timer("update"):
                numbers = self.update(x0_NLC, parts, number)
                self.average.join(number + 1)
            yield self.ended(number, self.unscored() | numbers, batch, self.shown(targets))

    def update(self, x0_NLC: Tensor, parts: list[tuple[list[int], Condition]], number: int) -> dict[str, float]:
        """One optimizer step on the pairs of all processes."""
        noise_NLC, sigma_N = self.noise_and_levels("pair noise", number, x0_NLC)
        total = 0.0
        for rows, cond in parts:
            x0, noise, sigma = x0_NLC[rows], noise_NLC[rows], sigma_N[rows]
            x = x0 + sigma[:, None, None] * (noise - x0)
            loss = flow_matching_loss(self.policy.velocity(x, sigma, cond), x0, noise).sum()
            (loss / self.cfg.supervised.batch).backward()
            total += loss.item()
        norm = self.step()
        loss = self.runtime.gather(torch.tensor([total], device=self.runtime.device)).sum().item()
        return {"loss": loss / self.cfg.supervised.batch, "gradient_norm": norm}
