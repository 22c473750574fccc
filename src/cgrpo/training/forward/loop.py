"""Reinforcement learning on the forward process: the credit table without stochastic sampling or replay.

Pictures are drawn by the ODE, each from its own noise, scored, and given credit as in GRPO. Then they are noised again
to drawn levels, and the loss (algorithm/forward.py) draws the velocity there to what was good and away from what was
bad. One level and one noise serve all samples of a group, so that they differ by nothing but their pictures.

Not in the paper: docs/notes/departures.md says what is taken from where.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cgrpo.algorithm import (
    awm_loss,
    diagnostics,
    draw_levels,
    integrate,
    nft_loss,
    noised,
    steps_at,
    velocity_gap,
)
from cgrpo.data import GroupNoise, Source, derive
from cgrpo.policies.base import Policy
from cgrpo.rewards import Reward
from cgrpo.training.forward.settings import ForwardConfig
from cgrpo.training.loop import GroupLoop, Iteration, MicroBatch, Part
from cgrpo.training.optimizer import Average, Runaway
from cgrpo.training.runtime import Runtime
from cgrpo.training.scoring import CreditTable
from cgrpo.types import Condition


@dataclass(frozen=True)
class Noised(Part):
    """Groups, and the levels and noise that their samples are trained at: all at their first level, then at the next.

    old_MLC    the old policy's velocity there, written before the updates; unused where the policy is still the old one
    """

    sigma_M: Tensor
    noise_MLC: Tensor
    old_MLC: Tensor

    def noised(self, index_B: Tensor) -> Tensor:
        """The samples of some pairs at their levels."""
        return noised(self.x0_NLC[self.sample_M[index_B]], self.noise_MLC[index_B], self.sigma_M[index_B])


class Forward(GroupLoop[ForwardConfig]):
    """Rollout by the ODE, scores, credit, updates at drawn noise levels."""

    def __init__(
        self, cfg: ForwardConfig, policy: Policy, rewards: dict[str, Reward], source: Source, runtime: Runtime
    ):
        super().__init__(cfg, policy, rewards, source, runtime)
        self.old = Average(policy, cfg.objective.old)  # the policy that samples, and about which the loss is built
        self.runaway = Runaway(cfg.training.runaway, cfg.training.runaway_patience)
        self.grid = policy.sigmas(cfg.sampling.rollout_steps, cfg.sampling.shift)
        # No step draws noise here. Weights by noise are those of Flow-GRPO's noise, whatever its level.
        self.credit = CreditTable(cfg, list(self.rewards), self.sigmas, "flow-grpo", noise_level=1.0)

    @property
    def stopped(self) -> str:
        """Why the run ends early, "" while it doesn't."""
        return self.runaway.stopped

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps alongside adapter and optimizer. Loading a checkpoint writes into these tensors."""
        return super().state() | self.old.state("old") | self.runaway.state()

    def run(self, first: int) -> Iterator[Iteration]:
        """Iterations ``first`` .. cfg.training.iterations - 1, fewer where the gradient's norm runs away."""
        group, objective = self.cfg.training.group_size, self.cfg.objective
        for number in self.iterations(first):
            with self.timer("encode"):
                batch = self.source.batch(self.tasks(number))
                conds = self.encode(batch, int(self.cfg.sampling.batch) // group)
            with self.timer("sample"), self.old.shown():
                parts, images_NHWC = self.sampled(batch, conds, functools.partial(self.sample, number))
            with self.timer("reward"):
                scores_PGR = self.scoring(images_NHWC, batch.repeat(group))  # of all processes
            with self.timer("update"):
                credit = self.credit(scores_PGR)  # Eq. 8, 10-12
                totals = Totals(self.runtime.device)
                numbers = diagnostics(scores_PGR, credit) | self.scoring.numbers(scores_PGR)
                credit = credit.below_zero(objective.negative)
                for part in parts:
                    self.add_old_velocity(part)
                for update in range(self.cfg.training.updates_per_rollout):
                    for micro in self.prefixed(self.micro_batches(parts, credit, update, objective.kl), objective.kl):
                        loss_B = self.loss(micro, totals, fresh=update == 0)
                        (loss_B.sum() * micro.weight).backward()
                    totals.norms.append(self.step(self.runaway.accepts))
                numbers |= totals.metrics(self.runtime) | self.runaway.iteration_ends()
                self.average.join(number + 1)
                self.old.join(number + 1)
            yield self.ended(number, numbers, batch, images_NHWC)
            if self.stopped:
                return

    @torch.no_grad()
    def sample(self, iteration: int, rows: list[int], cond: Condition) -> Noised:
        """Finished samples, each from its own noise; and the levels and noise that they will be trained at."""
        objective, group, seed = self.cfg.objective, self.cfg.training.group_size, self.cfg.training.seed
        positions, shape, device = [self.positions[row] for row in rows], self.policy.latent_shape, self.runtime.device
        x_NLC = GroupNoise(seed, iteration, positions, group, shape).initial(self.policy.dtype, shared=False).to(device)
        with self.policy.shared_prefix(cond) as shared:
            velocity = functools.partial(self.policy.velocity, cond=shared.repeat(group))
            x0_NLC = integrate(velocity, x_NLC, self.grid, self.cfg.sampling.order)
        if objective.shared_noise:
            streams, times = [derive(seed, "levels", iteration, position) for position in positions], group
        else:
            who = ((position, g) for position in positions for g in range(group))
            streams, times = [derive(seed, "levels", iteration, position, g) for position, g in who], 1
        sigma_PD = draw_levels(streams, objective.levels, objective.spread, self.sigmas)  # D: levels
        noise_DPLC = [
            torch.stack([torch.randn(shape, generator=stream) for stream in streams]) for _ in range(objective.levels)
        ]
        sigma_M = sigma_PD.T.repeat_interleave(times, 1).flatten().to(x0_NLC)
        noise_MLC = torch.cat([noise_PLC.repeat_interleave(times, 0) for noise_PLC in noise_DPLC]).to(x0_NLC)
        return Noised(
            rows,
            positions,
            cond.repeat(group),
            x0_NLC,
            sample_M=torch.arange(len(x0_NLC), device=device).repeat(objective.levels),
            step_M=steps_at(sigma_M.cpu(), self.sigmas.to("cpu", sigma_M.dtype)),
            input_M=torch.arange(len(sigma_M)),
            sigma_M=sigma_M,
            noise_MLC=noise_MLC,
            old_MLC=torch.zeros_like(noise_MLC),
        )

    @torch.no_grad()
    def add_old_velocity(self, part: Noised) -> None:
        """Write the old policy's velocity into ``part.old_MLC``, where the loss can't take the policy's own."""
        group, updates = self.cfg.training.group_size, self.cfg.training.updates_per_rollout
        moved = torch.ones_like(part.sample_M, dtype=torch.bool)
        if not self.old.weights:
            moved = part.sample_M % group % updates > 0
        if not moved.any():
            return
        with self.old.shown(), self.policy.shared_prefix(part.cond.select(slice(None, None, group))) as shared:
            cond = shared.repeat(group)
            for index_B in moved.nonzero()[:, 0].split(len(part.x0_NLC)):
                cond_B = cond.select(part.sample_M[index_B])
                x_BLC = part.noised(index_B)
                part.old_MLC[index_B] = self.policy.velocity(x_BLC, part.sigma_M[index_B], cond_B).to(x_BLC.dtype)

    def loss(self, micro: MicroBatch[Noised], totals: Totals, *, fresh: bool) -> Tensor:
        """The loss of B (sample, level) pairs [B]; ``fresh`` while the policy is still the one that sampled."""
        objective, part, index_B = self.cfg.objective, micro.part, micro.index_B
        sigma_B, x_BLC, sample_B = part.sigma_M[index_B], part.noised(index_B), part.sample_M[index_B]
        x0_BLC, cond_B, credit_B = part.x0_NLC[sample_B], micro.cond.select(sample_B), micro.credit_B.to(sigma_B)
        v_BLC = self.policy.velocity(x_BLC, sigma_B, cond_B)
        old_BLC = v_BLC.detach() if fresh and not self.old.weights else part.old_MLC[index_B]
        if objective.loss == "nft":
            given = (old_BLC, x_BLC, x0_BLC, sigma_B, credit_B)
            loss_B = nft_loss(v_BLC, *given, objective.beta, objective.normalise)
        else:
            loss_B = awm_loss(v_BLC, old_BLC, x0_BLC, part.noise_MLC[index_B], credit_B, objective.clip)
        kl_B = torch.zeros_like(loss_B)
        if objective.kl > 0:
            with torch.no_grad(), self.policy.reference():
                base_BLC = self.policy.velocity(x_BLC, sigma_B, micro.base.select(sample_B))
            kl_B = velocity_gap(v_BLC, base_BLC)
            loss_B = loss_B + objective.kl * kl_B
        if micro.weight:
            totals.add(loss_B.detach(), velocity_gap(v_BLC.detach(), old_BLC), kl_B.detach(), credit_B)
        return loss_B


class Totals:
    """Running totals of one iteration's updates, on ``device``: no micro-batch waits for a number."""

    def __init__(self, device: torch.device) -> None:
        self.norms: list[float] = []
        self.sums = torch.zeros(5, dtype=torch.float64, device=device)

    def add(self, loss_B: Tensor, gap_B: Tensor, kl_B: Tensor, credit_B: Tensor) -> None:
        clamped_B = (credit_B.abs() > 1).to(loss_B)
        rows = torch.stack([torch.ones_like(loss_B), loss_B, gap_B.to(loss_B), kl_B, clamped_B])
        self.sums += rows.double().sum(1)

    def metrics(self, runtime: Runtime) -> dict[str, float]:
        """Means over the pairs of all processes."""
        pairs, *sums = runtime.gather(self.sums[None]).sum(0).tolist()
        names = ("loss", "old_gap", "kl", "clamped_share")
        means = {name: value / max(pairs, 1) for name, value in zip(names, sums, strict=True)}
        return means | {"gradient_norm": sum(self.norms) / len(self.norms)}
