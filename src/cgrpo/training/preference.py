"""Offline preference optimisation, the paper's baseline RPO (Table 2): Flow-DPO's loss and RPO's similarity loss.

Pairs of a winner and a loser are given, or made before the training (commands/pairs.py). Winner, loser and reference of
a pair are noised to one level with one noise; the frozen policy that training started from is the loss's reference.
docs/departures.md says what of the paper's baseline is known and what is not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from PIL.Image import Image
from torch import Tensor

from cgrpo.algorithm import flow_matching_loss, noised, preference_loss
from cgrpo.config import PreferenceConfig
from cgrpo.data import PairSource, derive, task_indices
from cgrpo.policies.base import Policy
from cgrpo.rewards import Reward
from cgrpo.rewards.base import to_tensor
from cgrpo.training.average import Average
from cgrpo.training.optimizer import make_optimizer, set_learning_rate, step
from cgrpo.training.runtime import Runtime
from cgrpo.training.timer import Timer
from cgrpo.training.trainer import Iteration
from cgrpo.types import Condition


class Preference:
    """The trainer; the same face as ``GRPO``. Rewards are not looked at."""

    stopped = ""  # it never ends early by itself

    def __init__(
        self, cfg: PreferenceConfig, policy: Policy, rewards: dict[str, Reward], source: PairSource, runtime: Runtime
    ):
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
        settings, training = self.cfg.preference, self.cfg.training
        for number in range(first, training.iterations):
            timer = Timer()
            set_learning_rate(self.optimizer, training, number)
            pairs = task_indices(training.seed, number, settings.batch, self.source.size)
            with timer("encode"):
                batch, winners, losers = self.source.preferences([pairs[position] for position in self.positions])
                shown = [winners, losers]
                if settings.similarity:
                    shown.append([references[0].convert("RGB") for references in batch.references])
                x0_SNLC = torch.stack([self.policy.encode_targets(pictures) for pictures in shown])
                # With a sharded base all processes must make equally many forwards, whatever their pictures' sizes.
                most = 1 if self.runtime.sharded else max(1, training.micro_batch // len(shown))
                alike = self.policy.alike(batch, most)
                conds = self.policy.encode_parts(batch, alike)
            with timer("update"):
                numbers = self._update(x0_SNLC.to(self.runtime.device), list(zip(alike, conds, strict=True)), number)
                self.average.join(number + 1)
            nothing = {f"reward/{name}/{what}": math.nan for name in self.names for what in ("mean", "std")}
            numbers |= timer.seconds() | self.runtime.peak_memory()
            yield Iteration(number, nothing | numbers, batch, self._side_by_side(winners, losers))

    def _update(self, x0_SNLC: Tensor, parts: list[tuple[list[int], Condition]], number: int) -> dict[str, float]:
        """One step. S: winner, loser and, for the similarity loss, reference."""
        streams = [derive(self.cfg.training.seed, "preference noise", number, position) for position in self.positions]
        noise_NLC = torch.stack([torch.randn(x0_SNLC.shape[2:], generator=s) for s in streams]).to(x0_SNLC)
        sigma_N = torch.sigmoid(torch.cat([torch.randn(1, generator=s) for s in streams])).to(x0_SNLC)  # logit-normal
        totals, batch = torch.zeros(4, dtype=torch.float64), self.cfg.preference.batch
        for index, cond in parts:
            loss, numbers = self._loss(x0_SNLC[:, index], noise_NLC[index], sigma_N[index], cond)
            (loss / batch).backward()
            totals += numbers.double().cpu()
        norm = step(self.optimizer, self.parameters, self.cfg.training, self.runtime)
        means = (self.runtime.gather(totals[None].to(self.runtime.device)).sum(0) / batch).tolist()
        names = ("preference_loss", "similarity_loss", "preference_margin", "preference_accuracy")
        found = dict(zip(names, means, strict=True))
        whole = found["preference_loss"] + self.cfg.preference.similarity * found["similarity_loss"]
        return {"loss": whole, **found, "gradient_norm": norm}

    def _loss(self, x0_SBLC: Tensor, noise_BLC: Tensor, sigma_B: Tensor, cond: Condition) -> tuple[Tensor, Tensor]:
        """Summed loss of some pairs; and, summed, both losses, by how much the policy prefers the winner more than its
        reference does, and whether it does."""
        settings, count, sides = self.cfg.preference, len(sigma_B), len(x0_SBLC)
        x0, noise, sigma = x0_SBLC.flatten(0, 1), noise_BLC.repeat(sides, 1, 1), sigma_B.repeat(sides)
        x, rows = noised(x0, noise, sigma), list(range(count)) * sides
        pair, both = slice(2 * count), cond.select(rows[: 2 * count])
        with torch.no_grad(), self.policy.reference():
            frozen = flow_matching_loss(self.policy.velocity(x[pair], sigma[pair], both), x0[pair], noise[pair])
        errors_SB = flow_matching_loss(self.policy.velocity(x, sigma, cond.select(rows)), x0, noise).view(sides, count)
        frozen_SB = frozen.view(2, count)
        loss_B = preference_loss(errors_SB[0], frozen_SB[0], errors_SB[1], frozen_SB[1], settings.beta)
        like_B = errors_SB[2] if sides > 2 else torch.zeros_like(loss_B)
        margin_B = ((errors_SB[1] - frozen_SB[1]) - (errors_SB[0] - frozen_SB[0])).detach()
        numbers = torch.stack([loss_B.detach().sum(), like_B.detach().sum(), margin_B.sum(), (margin_B > 0).sum()])
        return (loss_B + settings.similarity * like_B).sum(), numbers

    def _side_by_side(self, winners: list[Image], losers: list[Image]) -> Tensor:
        """For the record: each pair's winner and loser, [2 * N, H, W, 3], in the policy's size."""
        size = (self.policy.width, self.policy.height)
        pairs = [picture for pair in zip(winners, losers, strict=True) for picture in pair]
        return to_tensor([picture if picture.size == size else picture.resize(size) for picture in pairs])
