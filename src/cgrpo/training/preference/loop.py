"""Offline preference optimisation, the paper's baseline RPO (Table 2): Flow-DPO's loss and RPO's similarity loss.

Pairs of a winner and a loser are given, or made before the training (commands/pairs.py). Winner, loser and reference of
a pair are noised to one level with one noise; the frozen policy that training started from is the loss's reference.
docs/notes/departures.md says what of the paper's baseline is known and what is not.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from cgrpo.algorithm import flow_matching_loss, noised, preference_loss
from cgrpo.data import PairSource, Source
from cgrpo.errors import UserError
from cgrpo.policies.base import Policy
from cgrpo.rewards import Reward
from cgrpo.training.loop import Iteration, PairLoop
from cgrpo.training.preference.settings import PreferenceConfig
from cgrpo.training.runtime import Runtime
from cgrpo.types import Condition


class Preference(PairLoop[PreferenceConfig]):
    """Winners and losers, noise, one optimizer step per iteration; the rewards are not looked at."""

    def __init__(
        self, cfg: PreferenceConfig, policy: Policy, rewards: dict[str, Reward], source: Source, runtime: Runtime
    ):
        super().__init__(cfg, policy, rewards, source, runtime)
        if not isinstance(source, PairSource):
            raise UserError("method preference trains on pairs: name a file of them as preference.pairs")
        self.pairs = source

    def run(self, first: int) -> Iterator[Iteration]:
        """Iterations ``first`` .. cfg.training.iterations - 1: one optimizer step each."""
        for number in self.iterations(first):
            with self.timer("encode"):
                batch, winners, losers = self.pairs.preferences(self.tasks(number))
                sides = [winners, losers]
                if self.cfg.preference.similarity:
                    sides.append([references[0].convert("RGB") for references in batch.references])
                x0_SNLC = torch.stack([self.policy.encode_targets(pictures) for pictures in sides])
                parts = self.encode(batch, int(self.cfg.training.micro_batch) // len(sides))
            with self.timer("update"):
                numbers = self.update(x0_SNLC.to(self.runtime.device), parts, number)
                self.average.join(number + 1)
            side_by_side = [picture for pair in zip(winners, losers, strict=True) for picture in pair]
            yield self.ended(number, self.unscored() | numbers, batch, self.shown(side_by_side))

    def update(self, x0_SNLC: Tensor, parts: list[tuple[list[int], Condition]], number: int) -> dict[str, float]:
        """One optimizer step. S: winner, loser and, for the similarity loss, reference."""
        noise_NLC, sigma_N = self.noise_and_levels("preference noise", number, x0_SNLC[0])
        totals, settings = torch.zeros(4, dtype=torch.float64), self.cfg.preference
        for rows, cond in parts:
            loss, numbers = self.loss(x0_SNLC[:, rows], noise_NLC[rows], sigma_N[rows], cond)
            (loss / settings.batch).backward()
            totals += numbers.double().cpu()
        norm = self.step()
        means = (self.runtime.gather(totals[None].to(self.runtime.device)).sum(0) / settings.batch).tolist()
        names = ("preference_loss", "similarity_loss", "preference_margin", "preference_accuracy")
        named = dict(zip(names, means, strict=True))
        whole = named["preference_loss"] + settings.similarity * named["similarity_loss"]
        return {"loss": whole, **named, "gradient_norm": norm}

    def loss(self, x0_SBLC: Tensor, noise_BLC: Tensor, sigma_B: Tensor, cond: Condition) -> tuple[Tensor, Tensor]:
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
