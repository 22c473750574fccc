"""Reinforcement learning on the forward process: the credit table without stochastic sampling or replay.

Pictures are drawn by the ODE, each from its own noise, scored, and given credit as in GRPO. Then they are noised again
to drawn levels, and the loss (algorithm/forward.py) draws the velocity there to what was good and away from what was
bad. One level and one noise serve all samples of a group, so that they differ by nothing but their pictures.

Not in the paper: docs/departures.md says what is taken from where.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cgrpo.algorithm import (
    Credit,
    awm_loss,
    diagnostics,
    draw_levels,
    integrate,
    nft_loss,
    noised,
    steps_at,
    velocity_gap,
)
from cgrpo.config import ForwardConfig
from cgrpo.data import GroupNoise, Source, derive, task_indices
from cgrpo.policies.base import Policy
from cgrpo.rewards import Reward
from cgrpo.training.average import Average
from cgrpo.training.optimizer import Runaway, make_optimizer, set_learning_rate, step
from cgrpo.training.runtime import Runtime
from cgrpo.training.scoring import Scoring
from cgrpo.training.timer import Timer
from cgrpo.training.trainer import Iteration
from cgrpo.training.weights import Filling
from cgrpo.types import Batch, Condition


@dataclass(frozen=True)
class Part:
    """Prompts of equal picture sizes: this process's ``rows``, at ``positions`` among all; their N finished samples.

    Trained are M pairs of a sample and a level: the samples at their first level, then at the next one.
    """

    rows: list[int]
    positions: list[int]
    cond: Condition
    x0_NLC: Tensor
    sample_M: Tensor
    sigma_M: Tensor
    noise_MLC: Tensor

    def noised(self, index_B: Tensor) -> Tensor:
        """The samples of some pairs at their levels."""
        return noised(self.x0_NLC[self.sample_M[index_B]], self.noise_MLC[index_B], self.sigma_M[index_B])


class Forward:
    """The trainer: policy, rewards and tasks in, one ``Iteration`` after another out."""

    def __init__(
        self, cfg: ForwardConfig, policy: Policy, rewards: dict[str, Reward], source: Source, runtime: Runtime
    ):
        self.cfg, self.policy, self.rewards, self.source, self.runtime = cfg, policy, rewards, source, runtime
        settings, sampling = cfg.training, cfg.sampling
        self.parameters = list(policy.trainable_parameters().values())
        self.optimizer = make_optimizer(settings, self.parameters)
        self.average = Average(policy, settings.average)
        self.old = Average(policy, cfg.objective.old)  # who samples, and about whom the loss is built
        self.runaway = Runaway(settings.runaway, settings.runaway_patience)
        self.positions = runtime.local(*cfg.share())
        self.grid = policy.sigmas(sampling.rollout_steps, sampling.shift)
        self.sigmas = policy.sigmas(sampling.steps, sampling.shift)  # the credit table's steps
        # No step draws noise here; weights by noise are what Flow-GRPO's would be, whatever its level.
        self.filling = Filling(cfg, list(rewards), self.sigmas, "flow-grpo", noise_level=1.0)
        self.scoring = Scoring(rewards, runtime, settings.group_size, settings.max_failed_groups)

    @property
    def stopped(self) -> str:
        """Why the run is to end early, "" while it isn't."""
        return self.runaway.stopped

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps beside adapter and optimizer, to be written into when it is read."""
        return self.average.state("average") | self.old.state("old") | self.runaway.state()

    def run(self, first: int) -> Iterator[Iteration]:
        """Iterations ``first`` .. cfg.training.iterations - 1, fewer where the gradient's norm runs away."""
        cfg, group = self.cfg, self.cfg.training.group_size
        for number in range(first, cfg.training.iterations):
            timer = Timer()
            set_learning_rate(self.optimizer, cfg.training, number)
            tasks = task_indices(cfg.training.seed, number, cfg.training.prompts_per_iteration, self.source.size)
            with timer("encode"):
                batch = self.source.batch([tasks[position] for position in self.positions])
                # With a sharded base all processes must make equally many forwards, whatever their pictures' sizes.
                alike = self.policy.alike(batch, 1 if self.runtime.sharded else max(1, cfg.sampling.batch // group))
                conds = self.policy.encode_parts(batch, alike)
            with timer("sample"), self.old.shown():
                pairs = zip(alike, conds, strict=True)
                parts = [self._sample(number, rows, cond.repeat(group)) for rows, cond in pairs]
            with timer("reward"):
                images_NHWC = self._decode(parts)
                scores_PGR = self._score(images_NHWC, batch.repeat(group))
            with timer("update"):
                credit, numbers = self._credit(scores_PGR)
                numbers |= self._update(parts, credit)
                self.average.join(number + 1)
                self.old.join(number + 1)
            numbers |= timer.seconds() | self.runtime.peak_memory()
            yield Iteration(number, numbers, batch, images_NHWC)
            if self.stopped:
                return

    def _sample(self, iteration: int, rows: list[int], cond: Condition) -> Part:
        """Finished samples, and the levels and noise that they will be trained at."""
        objective, group, seed = self.cfg.objective, self.cfg.training.group_size, self.cfg.training.seed
        positions, shape, device = [self.positions[row] for row in rows], self.policy.latent_shape, self.runtime.device
        noise = GroupNoise(seed, iteration, positions, group, shape)
        x_NLC = noise.initial(self.policy.dtype, shared=False).to(device)
        velocity = functools.partial(self.policy.velocity, cond=cond)
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
        return Part(
            rows,
            positions,
            cond,
            x0_NLC,
            sample_M=torch.arange(len(x0_NLC), device=device).repeat(objective.levels),
            sigma_M=sigma_PD.T.repeat_interleave(times, 1).flatten().to(x0_NLC),
            noise_MLC=torch.cat([noise_PLC.repeat_interleave(times, 0) for noise_PLC in noise_DPLC]).to(x0_NLC),
        )

    def _decode(self, parts: list[Part]) -> Tensor:
        """The pictures of all parts, in the order of this process's prompts."""
        images: dict[int, Tensor] = {}
        for part in parts:
            images |= zip(part.rows, self.policy.decode(part.x0_NLC).split(self.cfg.training.group_size), strict=True)
        return torch.cat([images[row] for row in sorted(images)])

    def _score(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        """Scores of all processes' samples [P, G, R]; this process scores its own."""
        return self.scoring(images_NHWC, batch)

    def _credit(self, scores_PGR: Tensor) -> tuple[Credit, dict[str, float]]:
        """The algorithm, as one table, over the prompts of all processes; and what to log of it."""
        credit = self.filling(scores_PGR)
        return credit, diagnostics(scores_PGR, credit) | self.scoring.numbers(scores_PGR)

    def _update(self, parts: list[Part], credit: Credit) -> dict[str, float]:
        """``updates_per_rollout`` optimizer steps; each takes an equal share of every group."""
        updates = self.cfg.training.updates_per_rollout
        pairs = sum(len(part.sample_M) for part in parts) * self.runtime.world // updates
        olds = [self._old_velocity(part) for part in parts]
        totals = Totals()
        for update in range(updates):
            work = [
                (part, old, *micro)
                for part, old in zip(parts, olds, strict=True)
                for micro in self._micro_batches(part, credit, update)
            ]
            # A sharded base is gathered by all processes together: who is done early goes through the motions.
            for turn in range(self.runtime.largest(len(work)) if self.runtime.sharded else len(work)):
                idle = turn >= len(work)
                nothing = (parts[0], olds[0], torch.zeros(1).long(), torch.zeros(1))
                part, old, index_B, credit_B = nothing if idle else work[turn]
                loss = self._loss(part, old, index_B, credit_B, None if idle else totals, fresh=update == 0)
                (loss * (0 if idle else 1 / pairs)).backward()
            totals.norms.append(self._step())
        return totals.metrics(self.runtime) | self.runaway.iteration_ends()

    @torch.no_grad()
    def _old_velocity(self, part: Part) -> Tensor:
        """The old policy's velocity at the pairs, [M, L, C]; left at 0 where it is the policy's own, untouched yet."""
        group, updates = self.cfg.training.group_size, self.cfg.training.updates_per_rollout
        old_MLC = torch.zeros_like(part.noise_MLC)
        moved = torch.ones_like(part.sample_M, dtype=torch.bool)
        if not self.old.weights:
            moved = part.sample_M % group % updates > 0
        with self.old.shown():
            for index_B in moved.nonzero()[:, 0].split(len(part.x0_NLC)) if moved.any() else ():
                cond_B = part.cond.select(part.sample_M[index_B])
                x_BLC = part.noised(index_B)
                old_MLC[index_B] = self.policy.velocity(x_BLC, part.sigma_M[index_B], cond_B).to(x_BLC.dtype)
        return old_MLC

    def _micro_batches(self, part: Part, credit: Credit, share: int) -> list[tuple[Tensor, Tensor]]:
        """The pairs of a part that an update trains, in micro-batches: (index_B, credit_B)."""
        settings, group = self.cfg.training, self.cfg.training.group_size
        sample_M = part.sample_M.cpu()
        number_M = torch.tensor(part.positions)[sample_M // group] * group + sample_M % group
        step_M = steps_at(part.sigma_M.cpu(), self.sigmas.to("cpu", part.sigma_M.dtype))
        credit_M = credit.of_pairs(number_M, step_M)
        credit_M = torch.where(credit_M < 0, self.cfg.objective.negative * credit_M, credit_M)
        useful_M = (credit_M != 0) | (self.cfg.objective.kl > 0)
        mine = (useful_M & (sample_M % group % settings.updates_per_rollout == share)).nonzero()[:, 0]
        return [(index_B, credit_M[index_B]) for index_B in mine.split(settings.micro_batch) if len(index_B)]

    def _loss(
        self, part: Part, old_MLC: Tensor, index_B: Tensor, credit_B: Tensor, totals: Totals | None, fresh: bool
    ) -> Tensor:
        """Summed loss of some pairs; ``fresh`` while the policy is still the one that sampled."""
        objective, index_B = self.cfg.objective, index_B.to(part.sample_M.device)
        sigma_B, x_BLC, sample_B = part.sigma_M[index_B], part.noised(index_B), part.sample_M[index_B]
        x0_BLC, cond_B, credit_B = part.x0_NLC[sample_B], part.cond.select(sample_B), credit_B.to(sigma_B)
        v_BLC = self.policy.velocity(x_BLC, sigma_B, cond_B)
        old_BLC = v_BLC.detach() if fresh and not self.old.weights else old_MLC[index_B]
        if objective.loss == "nft":
            given = (old_BLC, x_BLC, x0_BLC, sigma_B, credit_B)
            loss_B = nft_loss(v_BLC, *given, objective.beta, objective.normalise)
        else:
            loss_B = awm_loss(v_BLC, old_BLC, x0_BLC, part.noise_MLC[index_B], credit_B, objective.clip)
        kl_B = torch.zeros_like(loss_B)
        if objective.kl > 0:
            with torch.no_grad(), self.policy.reference():
                base_BLC = self.policy.velocity(x_BLC, sigma_B, cond_B)
            kl_B = velocity_gap(v_BLC, base_BLC)
            loss_B = loss_B + objective.kl * kl_B
        if totals is not None:
            totals.add(loss_B.detach(), velocity_gap(v_BLC.detach(), old_BLC), kl_B.detach(), credit_B)
        return loss_B.sum()

    def _step(self) -> float:
        """One optimizer step on the gradients of all processes, unless their norm, which it returns, ran away."""
        return step(self.optimizer, self.parameters, self.cfg.training, self.runtime, self.runaway)


class Totals:
    """Running totals of one iteration's updates."""

    def __init__(self) -> None:
        self.norms: list[float] = []
        self.sums = torch.zeros(5, dtype=torch.float64)

    def add(self, loss_B: Tensor, gap_B: Tensor, kl_B: Tensor, credit_B: Tensor) -> None:
        clamped_B = (credit_B.abs() > 1).to(loss_B)
        rows = torch.stack([torch.ones_like(loss_B), loss_B, gap_B.to(loss_B), kl_B, clamped_B])
        self.sums += rows.double().sum(1).cpu()

    def metrics(self, runtime: Runtime) -> dict[str, float]:
        """Means over the pairs of all processes."""
        pairs, *sums = runtime.gather(self.sums[None].to(runtime.device)).sum(0).tolist()
        names = ("loss", "old_gap", "kl", "clamped_share")
        means = {name: value / max(pairs, 1) for name, value in zip(names, sums, strict=True)}
        return means | {"gradient_norm": sum(self.norms) / len(self.norms)}
