"""Algorithm 1: online reinforcement learning of the policy on the credit table.

Where this departs from the paper and the authors' release (docs/notes/departures.md has the whole list):

- An optimizer step trains an equal share of every group's samples over all trained steps. Algorithm 1 steps after
  every timestep, the release after every 4 samples.
- A step's weights are those of its true index. The release looks them up by position in a shuffled list.
- Gradients are summed over processes. The release's processes never exchange them.
- The generated picture is segmented like the reference. The release masks the reference alone.
- Initial noise and trained steps are functions of (seed, iteration, prompt), so a run can be resumed bit for bit.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cgrpo.algorithm import (
    Velocity,
    Window,
    all_steps,
    clipped_surrogate,
    diagnostics,
    evaluated_once,
    firsts,
    policy_kl,
    random_fraction,
    replay_logp,
    rollout,
    shared_lead,
    sliding_window,
    window_start,
)
from cgrpo.data import GroupNoise, Source
from cgrpo.errors import UserError
from cgrpo.policies.base import Policy
from cgrpo.rewards import Reward
from cgrpo.training.grpo.settings import GrpoConfig
from cgrpo.training.loop import GroupLoop, Iteration, MicroBatch, Part
from cgrpo.training.runtime import Runtime
from cgrpo.training.scoring import CreditTable
from cgrpo.types import Condition, Rollout


@dataclass(frozen=True)
class Sampled(Part):
    """Groups and the stochastic transitions that they were drawn by."""

    roll: Rollout


class GRPO(GroupLoop[GrpoConfig]):
    """Rollout, scores, credit, clipped updates."""

    def __init__(self, cfg: GrpoConfig, policy: Policy, rewards: dict[str, Reward], source: Source, runtime: Runtime):
        super().__init__(cfg, policy, rewards, source, runtime)
        self.credit = CreditTable(cfg, list(self.rewards), self.sigmas, cfg.sampling.kind, cfg.sampling.noise_level)

    def run(self, first: int) -> Iterator[Iteration]:
        """Iterations ``first`` .. cfg.training.iterations - 1."""
        group, objective = self.cfg.training.group_size, self.cfg.objective
        for number in self.iterations(first):
            with self.timer("encode"):
                batch = self.source.batch(self.tasks(number))
                conds = self.encode(batch, int(self.cfg.sampling.batch) // group)
            with self.timer("sample"):
                parts, images_NHWC = self.sampled(batch, conds, functools.partial(self.sample, number))
            with self.timer("reward"):
                scores_PGR = self.scoring(images_NHWC, batch.repeat(group))  # of all processes
            with self.timer("update"):
                credit = self.credit(scores_PGR)  # Eq. 8, 10-12
                totals = Totals(self.runtime.device)
                numbers = diagnostics(scores_PGR, credit) | self.scoring.numbers(scores_PGR)
                for update in range(self.cfg.training.updates_per_rollout):
                    for micro in self.prefixed(self.micro_batches(parts, credit, update, objective.kl), objective.kl):
                        loss_B = self.loss(micro, totals, fresh=update == 0)  # Eq. 7
                        (loss_B.sum() * micro.weight).backward()
                    self.check_ratio(totals)
                    totals.norms.append(self.step())
                numbers |= totals.metrics(self.runtime)
                self.average.join(number + 1)
            yield self.ended(number, numbers, batch, images_NHWC)

    @torch.no_grad()
    def sample(self, iteration: int, rows: list[int], cond: Condition) -> Sampled:
        """Groups for some prompts, from noise that each group shares, by stochastic steps (Eq. 13)."""
        settings, group = self.cfg.sampling, self.cfg.training.group_size
        positions = [self.positions[row] for row in rows]
        noise = GroupNoise(self.cfg.training.seed, iteration, positions, group, self.policy.latent_shape)
        window, each = self.window(iteration, noise), cond.repeat(group)
        start_NLC = noise.initial(self.policy.dtype).to(self.runtime.device)
        kind, level = settings.kind, settings.noise_level
        with self.policy.shared_prefix(cond) as shared:
            lead = functools.partial(self.policy.velocity, cond=shared)
            x_NLC = shared_lead(lead, start_NLC[::group], self.sigmas, window).repeat_interleave(group, 0)
            velocity = functools.partial(self.policy.velocity, cond=shared.repeat(group))
            start = evaluated_once(lead, [group] * len(rows))
            roll = rollout(velocity, x_NLC, self.sigmas, window, noise.step, kind, level, window.lead, start)
        sample_M, step_M = roll.sample_M.cpu(), roll.step_M.cpu()
        input_M = step_M * len(each) + torch.where(step_M == window.lead, sample_M - sample_M % group, sample_M)
        return Sampled(rows, positions, each, roll.x_NLC, roll.sample_M, roll.step_M, input_M, roll)

    def window(self, iteration: int, noise: GroupNoise) -> Window:
        """Which steps of an iteration are stochastic, and which of them each sample trains."""
        window, steps, count = self.cfg.sampling.window, self.cfg.sampling.steps, len(noise.window_generators)
        match window.type:
            case "all":
                return all_steps(steps, count)
            case "fraction":
                return random_fraction(steps, count, window.fraction, generators=noise.window_generators)
            case "sliding":
                start = window_start(iteration, steps, window.size, window.stride, window.every)
                return sliding_window(steps, count, start, window.size)

    def loss(self, micro: MicroBatch[Sampled], totals: Totals, *, fresh: bool) -> Tensor:
        """The loss of B (sample, step) pairs [B]; ``fresh`` while the policy is still the one that sampled."""
        objective, sampling, roll = self.cfg.objective, self.cfg.sampling, micro.part.roll
        old_logp_B, credit_B = roll.logp_M[micro.index_B], micro.credit_B.to(roll.logp_M)
        sample_U = firsts(roll.sample_M[micro.index_B], micro.counts)

        def velocity(cond: Condition) -> Velocity:
            return evaluated_once(functools.partial(self.policy.velocity, cond=cond.select(sample_U)), micro.counts)

        transitions = (roll, micro.index_B, self.sigmas, sampling.kind, sampling.noise_level)
        logp_B, mean_BLC, std_B11 = replay_logp(velocity(micro.cond), *transitions)
        loss_B = clipped_surrogate(logp_B, old_logp_B, credit_B, objective.clip)
        kl_B = torch.zeros_like(loss_B)
        if objective.kl > 0:
            with torch.no_grad(), self.policy.reference():
                _, base_BLC, _ = replay_logp(velocity(micro.base), *transitions)
            kl_B = policy_kl(mean_BLC, base_BLC, std_B11)
            loss_B = loss_B + objective.kl * kl_B
        if micro.weight:
            totals.add((logp_B.detach() - old_logp_B).exp(), credit_B, objective.clip, kl_B.detach(), fresh)
        return loss_B

    def check_ratio(self, totals: Totals) -> None:
        """Before the first update after a rollout every ratio must be 1. Raises UserError on all processes alike."""
        limit = self.cfg.objective.max_ratio_drift
        drift = totals.drift.item()
        if self.runtime.any(drift > limit):
            raise UserError(
                f"rollout and replay disagree: |ratio - 1| reached {drift:.2e} before the first update (limit "
                f"{limit:.0e}); the policy is not deterministic or its precision too low: use policy.dtype = float32, "
                "or raise objective.max_ratio_drift if the drift is only rounding"
            )


class Totals:
    """Running totals of one iteration's updates, on ``device``: no micro-batch waits for a number."""

    def __init__(self, device: torch.device) -> None:
        self.norms: list[float] = []
        self.drift = torch.zeros(1, device=device)  # largest |ratio - 1| before the first update
        self.sums = torch.zeros(4, dtype=torch.float64, device=device)

    def add(self, ratio_B: Tensor, credit_B: Tensor, clip: float, kl_B: Tensor, fresh: bool) -> None:
        away_B = (ratio_B - 1).abs()
        if fresh:
            self.drift = torch.maximum(self.drift, away_B.max().float())
        # Clipped: the ratio has already moved past the range in the direction that the credit asks for.
        clipped_B = (((ratio_B - 1) * credit_B.sign()) > clip).to(away_B)
        self.sums += torch.stack([torch.ones_like(away_B), clipped_B, away_B, kl_B]).double().sum(1)

    def metrics(self, runtime: Runtime) -> dict[str, float]:
        """Means over the pairs of all processes."""
        pairs, clipped, spread, kl = runtime.gather(self.sums[None]).sum(0).tolist()
        pairs = max(pairs, 1)
        return {
            "ratio_drift": runtime.gather(self.drift).max().item(),
            "ratio_spread": spread / pairs,
            "clip_share": clipped / pairs,
            "kl": kl / pairs,
            "gradient_norm": sum(self.norms) / len(self.norms),
        }
