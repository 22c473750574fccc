"""Algorithm 1: online reinforcement learning of the policy on the credit table.

Departures from the paper and the release (docs/departures.md has the whole list): one optimizer step
per part of a group rather than per timestep; true-step weights; gradients really are summed over
processes; the generated picture is segmented like the reference; everything can be resumed.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cgrpo.algorithm import (
    Credit,
    Window,
    all_steps,
    clipped_surrogate,
    diagnostics,
    policy_kl,
    random_fraction,
    replay_logp,
    rollout,
    shared_lead,
    sliding_window,
    window_start,
)
from cgrpo.config import GrpoConfig
from cgrpo.data import GroupNoise, Source, task_indices
from cgrpo.policies.base import Policy
from cgrpo.rewards import Reward
from cgrpo.training.average import Average
from cgrpo.training.checks import check_ratio
from cgrpo.training.optimizer import make_optimizer, set_learning_rate, step
from cgrpo.training.runtime import Runtime
from cgrpo.training.scoring import Scoring
from cgrpo.training.timer import Timer
from cgrpo.training.trainer import Iteration
from cgrpo.training.weights import Filling
from cgrpo.types import Batch, Condition, Rollout


@dataclass(frozen=True)
class Part:
    """Prompts of equal picture sizes, sampled together: this process's ``rows``, at ``positions`` among all."""

    rows: list[int]
    positions: list[int]
    cond: Condition
    roll: Rollout


class GRPO:
    """The trainer: policy, rewards and tasks in, one ``Iteration`` after another out."""

    stopped = ""  # it never ends early by itself

    def __init__(
        self,
        cfg: GrpoConfig,
        policy: Policy,
        rewards: dict[str, Reward],
        source: Source,
        runtime: Runtime,
    ):
        self.cfg, self.policy, self.rewards, self.source, self.runtime = cfg, policy, rewards, source, runtime
        self.parameters = list(policy.trainable_parameters().values())
        settings = cfg.training
        self.optimizer = make_optimizer(settings, self.parameters)
        self.average = Average(policy, settings.average)
        self.positions = runtime.local(*cfg.share())
        self.sigmas = policy.sigmas(cfg.sampling.steps, cfg.sampling.shift)
        self.filling = Filling(cfg, list(rewards), self.sigmas, cfg.sampling.kind, cfg.sampling.noise_level)
        self.scoring = Scoring(rewards, runtime, settings.group_size, settings.max_failed_groups)

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps beside adapter and optimizer, to be written into when it is read."""
        return self.average.state("average")

    def run(self, first: int) -> Iterator[Iteration]:
        """Iterations ``first`` .. cfg.training.iterations - 1."""
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
            with timer("sample"):
                pairs = zip(alike, conds, strict=True)
                parts = [self._sample(number, rows, cond) for rows, cond in pairs]
            with timer("reward"):
                images_NHWC = self._decode(parts)
                scores_PGR = self._score(images_NHWC, batch.repeat(group))
            with timer("update"):
                credit, numbers = self._credit(scores_PGR)
                numbers |= self._update(parts, credit)
                self.average.join(number + 1)
            numbers |= timer.seconds() | self.runtime.peak_memory()
            yield Iteration(number, numbers, batch, images_NHWC)

    def _sample(self, iteration: int, rows: list[int], cond: Condition) -> Part:
        settings, group, seed = self.cfg.sampling, self.cfg.training.group_size, self.cfg.training.seed
        positions = [self.positions[row] for row in rows]
        noise = GroupNoise(seed, iteration, positions, group, self.policy.latent_shape)
        window, each = self._window(iteration, noise), cond.repeat(group)
        start_NLC = noise.initial(self.policy.dtype).to(self.runtime.device)
        lead = functools.partial(self.policy.velocity, cond=cond)
        x_NLC = shared_lead(lead, start_NLC[::group], self.sigmas, window).repeat_interleave(group, 0)
        velocity = functools.partial(self.policy.velocity, cond=each)
        kind, level = settings.kind, settings.noise_level
        roll = rollout(velocity, x_NLC, self.sigmas, window, noise.step, kind, level, window.lead)
        return Part(rows, positions, each, roll)

    def _decode(self, parts: list[Part]) -> Tensor:
        """The pictures of all parts, in the order of this process's prompts."""
        group = self.cfg.training.group_size
        images: dict[int, Tensor] = {}
        for part in parts:
            images |= zip(part.rows, self.policy.decode(part.roll.x_NLC).split(group), strict=True)
        return torch.cat([images[row] for row in sorted(images)])

    def _window(self, iteration: int, noise: GroupNoise) -> Window:
        window, steps, count = self.cfg.sampling.window, self.cfg.sampling.steps, len(noise.window_generators)
        match window.type:
            case "all":
                return all_steps(steps, count)
            case "fraction":
                return random_fraction(steps, count, window.fraction, generators=noise.window_generators)
            case "sliding":
                start = window_start(iteration, steps, window.size, window.stride, window.every)
                return sliding_window(steps, count, start, window.size)

    def _score(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        """Scores of all processes' samples [P, G, R]; this process scores its own."""
        return self.scoring(images_NHWC, batch)

    def _credit(self, scores_PGR: Tensor) -> tuple[Credit, dict[str, float]]:
        """The algorithm, as one table, over the prompts of all processes; and what to log of it."""
        credit = self.filling(scores_PGR)
        return credit, diagnostics(scores_PGR, credit) | self.scoring.numbers(scores_PGR)

    def _update(self, parts: list[Part], credit: Credit) -> dict[str, float]:
        """``updates_per_rollout`` optimizer steps; each takes an equal share of every group."""
        limit, updates = self.cfg.objective.max_ratio_drift, self.cfg.training.updates_per_rollout
        # Every sample trains equally many steps, so the number of pairs over all processes needs no exchange.
        pairs = sum(len(part.roll.sample_M) for part in parts) * self.runtime.world // updates
        totals = Totals()
        for update in range(updates):
            work = [micro for part in parts for micro in self._micro_batches(part, credit, update)]
            # A sharded base is gathered by all processes together: who is done early goes through the motions.
            for turn in range(self.runtime.largest(len(work)) if self.runtime.sharded else len(work)):
                idle = turn >= len(work)
                part, index_B, credit_B = (parts[0], torch.zeros(1).long(), torch.zeros(1)) if idle else work[turn]
                loss = self._loss(part, index_B, credit_B, None if idle else totals, fresh=update == 0)
                (loss * (0 if idle else 1 / pairs)).backward()
            if self.runtime.any(totals.drift > limit):
                check_ratio(totals.drift, limit)
            totals.norms.append(self._step())
        return totals.metrics(self.runtime)

    def _micro_batches(self, part: Part, credit: Credit, share: int) -> list[tuple[Part, Tensor, Tensor]]:
        """The pairs of a part that an update trains, in micro-batches: (part, index_B, credit_B)."""
        settings, group, roll = self.cfg.training, self.cfg.training.group_size, part.roll
        sample_M, step_M = roll.sample_M.cpu(), roll.step_M.cpu()
        number_M = torch.tensor(part.positions)[sample_M // group] * group + sample_M % group
        credit_M = credit.of_pairs(number_M, step_M).to(roll.logp_M)
        useful_M = (credit_M.cpu() != 0) | (self.cfg.objective.kl > 0)
        mine = (useful_M & (sample_M % group % settings.updates_per_rollout == share)).nonzero()[:, 0]
        return [(part, index_B, credit_M[index_B]) for index_B in mine.split(settings.micro_batch) if len(index_B)]

    def _loss(self, part: Part, index_B: Tensor, credit_B: Tensor, totals: Totals | None, fresh: bool) -> Tensor:
        """Summed loss of some (sample, step) pairs; ``fresh`` while the policy is still the one that sampled."""
        objective, sampling, roll = self.cfg.objective, self.cfg.sampling, part.roll
        credit_B, index_B = credit_B.to(roll.logp_M), index_B.to(roll.sample_M.device)
        cond_B = part.cond.select(roll.sample_M[index_B])
        replay = functools.partial(
            replay_logp,
            rollout=roll,
            index_B=index_B,
            sigmas=self.sigmas,
            kind=sampling.kind,
            noise_level=sampling.noise_level,
        )
        logp_B, mean_BLC, std_B11 = replay(functools.partial(self.policy.velocity, cond=cond_B))
        loss_B = clipped_surrogate(logp_B, roll.logp_M[index_B], credit_B, objective.clip)
        kl_B = torch.zeros_like(loss_B)
        if objective.kl > 0:
            with torch.no_grad(), self.policy.reference():
                _, base_BLC, _ = replay(functools.partial(self.policy.velocity, cond=cond_B))
            kl_B = policy_kl(mean_BLC, base_BLC, std_B11)
            loss_B = loss_B + objective.kl * kl_B
        if totals is not None:
            totals.add((logp_B.detach() - roll.logp_M[index_B]).exp(), credit_B, objective.clip, kl_B.detach(), fresh)
        return loss_B.sum()

    def _step(self) -> float:
        """One optimizer step on the gradients of all processes; returns their norm."""
        return step(self.optimizer, self.parameters, self.cfg.training, self.runtime)


class Totals:
    """Running totals of one iteration's updates."""

    def __init__(self) -> None:
        self.norms: list[float] = []
        self.drift = 0.0  # largest |ratio - 1| before the first update
        self.pairs = self.clipped = 0
        self.spread = self.kl = 0.0

    def add(self, ratio_B: Tensor, credit_B: Tensor, clip: float, kl_B: Tensor, fresh: bool) -> None:
        away_B = (ratio_B - 1).abs()
        if fresh:
            self.drift = max(self.drift, away_B.max().item())
        # Clipped: the ratio has already moved past the range in the direction that the credit asks for.
        self.clipped += int((((ratio_B - 1) * credit_B.sign()) > clip).sum())
        self.spread += away_B.sum().item()
        self.kl += kl_B.sum().item()
        self.pairs += len(ratio_B)

    def metrics(self, runtime: Runtime) -> dict[str, float]:
        own = torch.tensor([[self.pairs, self.clipped, self.spread, self.kl]], device=runtime.device)
        pairs, clipped, spread, kl = runtime.gather(own).sum(0).tolist()
        drift = runtime.gather(torch.tensor([self.drift], device=runtime.device)).max().item()
        pairs = max(pairs, 1)
        return {
            "ratio_drift": drift,
            "ratio_spread": spread / pairs,
            "clip_share": clipped / pairs,
            "kl": kl / pairs,
            "gradient_norm": sum(self.norms) / len(self.norms),
        }
