"""Which step decides which reward: how much of a reward's variance is still open as denoising goes on.

By branching. From the state x_k before step k of a task's trajectory, several samples go on with fresh noise of their
own; the variance of their final rewards, averaged over tasks, is what steps k, k + 1, ... have yet to decide:

    open[k] = E[Var(reward | x_k)],    open[0] the variance within a training group,    open[T - 1] = 0

By the law of total variance open[k] - open[k + 1] is what step k decides, and its share of open[0] the step's share.
The premise of Timestep-Aware Dynamic Weighting is that prompt following is decided before identity.

*Measured* weights put it to use: the prompt's weight at a step is its share there and thereabouts over the sum of both
rewards' shares, in place of Eq. 12's sigmoid.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from matplotlib.figure import Figure
from scipy.optimize import isotonic_regression
from torch import Tensor

from cgrpo.algorithm import Noise, all_steps, rollout, sigmoid_weights
from cgrpo.analysis.inputs import PAIR, AnalysisInputs, Estimate, Result, estimate
from cgrpo.config import Config
from cgrpo.data import derive
from cgrpo.errors import UserError
from cgrpo.evaluation.show.plots import MUTED, axis_colour, legend, panels
from cgrpo.evaluation.show.table import DASH, Table, interval, number
from cgrpo.training.grpo.settings import GrpoConfig
from cgrpo.types import Condition

DRAWS = 1000  # resamplings of the tasks, for the shares' intervals


@dataclass(frozen=True)
class Decisions(Result):
    """Of R rewards by ``names``:

    open       by reward, the variance that is still open before each step
    share_KR   [K, R]     what each step decides of it; low_KR, high_KR the 95 % interval over tasks
    prompt_K   [K]        measured weights of the prompt reward; empty unless both rewards are there and vary
    """

    names: tuple[str, ...]
    sigmas: tuple[float, ...]
    tasks: int
    branches: int
    open: Mapping[str, Sequence[Estimate]]
    share_KR: Tensor
    low_KR: Tensor
    high_KR: Tensor
    prompt_K: Tensor

    def as_dict(self) -> dict[str, Any]:
        table: dict[str, Any] = {"tasks": self.tasks, "branches": self.branches, "sigmas": self.sigmas}
        table["rewards"] = {
            name: {
                "open": list(map(asdict, self.open[name])),
                "decided": self.share_KR[:, r].tolist(),
                "decided_low": self.low_KR[:, r].tolist(),
                "decided_high": self.high_KR[:, r].tolist(),
            }
            for r, name in enumerate(self.names)
        }
        if len(self.prompt_K):
            table["weights"] = {"prompt": self._rounded(), "mean": self.prompt_K.mean().item(), "set": self.settings()}
        return table

    def settings(self) -> list[str]:
        """What ``--set`` takes to train with the measured weights."""
        return ["weights.type=measured", f"weights.measured={self._rounded()}".replace(" ", "")]

    def _rounded(self) -> list[float]:
        return [round(w, 3) for w in self.prompt_K.tolist()]

    def tables(self) -> list[Table]:
        steps = range(len(self.sigmas))
        head = [
            "step",
            "sigma",
            *(f"{name}: open" for name in self.names),
            *(f"{name}: decided" for name in self.names),
        ]
        head += ["prompt's weight"] if len(self.prompt_K) else []
        rows = [
            [
                str(k),
                number(self.sigmas[k]),
                *(number(self.open[name][k].mean, 5) for name in self.names),
                *(self._share(k, r) for r in range(len(self.names))),
                *([number(self.prompt_K[k].item())] if len(self.prompt_K) else []),
            ]
            for k in steps
        ]
        note = (
            f"Variance of the final reward that is still open before a step (mean over {self.tasks} tasks, "
            f"{self.branches} branches each), the share of the whole that the step decides with its 95 % interval over "
            "tasks, and the weights measured from it."
        )
        if len(self.prompt_K):
            note += " To train with them: " + " ".join(f"--set '{setting}'" for setting in self.settings())
        return [Table("Which step decides which reward", note, head, rows, "r" * len(head))]

    def _share(self, k: int, r: int) -> str:
        if k == len(self.sigmas) - 1:
            return DASH  # deterministic
        low, high = self.low_KR[k, r].item(), self.high_KR[k, r].item()
        return f"{number(self.share_KR[k, r].item(), 2)} [{interval(low, high, 2, signed=False)}]"

    def draw(self, name: str) -> Figure:
        figure, (left, right) = panels([f"Variance still open before a step: {name}", "Decided at a step"], (9.2, 3.2))
        steps = range(len(self.sigmas))
        for r, reward in enumerate(self.names):
            colour, whole = axis_colour(reward), self.open[reward][0].mean or float("nan")
            mean, low, high = zip(
                *((e.mean / whole, e.low / whole, e.high / whole) for e in self.open[reward]), strict=True
            )
            left.plot(steps, mean, color=colour, marker="o", markersize=4, label=reward)
            left.fill_between(steps, low, high, color=colour, alpha=0.13, linewidth=0)
            shift = (r - (len(self.names) - 1) / 2) * 0.8 / len(self.names)
            places, shares = [k + shift for k in steps], self.share_KR[:, r]
            bars = torch.stack([shares - self.low_KR[:, r], self.high_KR[:, r] - shares]).clamp(min=0)
            right.bar(places, shares.tolist(), 0.8 / len(self.names), color=colour, alpha=0.55)
            right.errorbar(places, shares.tolist(), bars.tolist(), fmt="none", ecolor=MUTED, elinewidth=0.8)
        if len(self.prompt_K):
            schedule = sigmoid_weights(len(self.sigmas)).tolist()
            right.plot(steps, schedule, color=MUTED, linewidth=1.1, dashes=(5, 3), label="prompt's weight: TDW")
            right.plot(steps, self.prompt_K.tolist(), color=MUTED, linewidth=2, label="prompt's weight: measured")
            legend(right)
        left.set_ylim(bottom=0)
        legend(left)
        for axes in (left, right):
            axes.set_xlabel("step, from noise to picture")
        return figure


def branching(cfg: Config) -> GrpoConfig:
    """The configuration as one whose steps carry noise. Raises UserError for a method without."""
    if not isinstance(cfg, GrpoConfig):
        raise UserError(
            f"method {cfg.method!r} samples without noise at its steps, so there is nothing to branch on; "
            "cgrpo analyze gradients says which noise level carries which reward"
        )
    return cfg


def measure_decisions(inputs: AnalysisInputs, tasks: int = 24, branches: int = 12) -> Decisions:
    """Branch at every stochastic step of ``tasks`` trajectories, ``branches`` samples at each.

    Sampling is the run's, but for a sliding window, in whose place all steps carry noise. branches >= 2. Raises
    UserError as ``branching`` does.
    """
    cfg = branching(inputs.cfg)
    policy, sampling = inputs.policy, cfg.sampling
    sigmas, batch = policy.sigmas(sampling.steps, sampling.shift), inputs.tasks(tasks)
    open_PKR = torch.zeros(tasks, sampling.steps, len(inputs.rewards), dtype=torch.float64)
    for numbers in policy.alike(batch, max(1, int(sampling.batch) // branches)):
        part = batch.select(numbers)
        cond = policy.encode_parts(part, [range(len(numbers))])[0]
        for k, state_PLC in enumerate(_trajectory(inputs, cfg, numbers, sigmas, cond)):
            finished_NLC = rollout(
                functools.partial(policy.velocity, cond=cond.repeat(branches)),
                state_PLC.repeat_interleave(branches, 0),
                sigmas[k:],
                all_steps(sampling.steps - k, len(numbers) * branches),
                _fresh_noise(inputs, f"branch {k}", numbers, branches),
                sampling.kind,
                sampling.noise_level,
            ).x_NLC
            scores_NR = inputs.score(finished_NLC, part.repeat(branches))
            open_PKR[numbers, k] = _variance(scores_NR.view(len(numbers), branches, -1))
        inputs.tick(len(numbers))
    return decisions(open_PKR, tuple(inputs.rewards), sigmas.tolist()[:-1], branches)


def decisions(open_PKR: Tensor, names: Sequence[str], sigmas: Sequence[float], branches: int) -> Decisions:
    """From each task's variance that is still open before each step [P, K, R], NaN where it could not be scored, to
    shares, their intervals by resampling tasks, and weights."""
    share_KR = step_shares(open_PKR.nanmean(0))
    generator = derive("tasks resampled")
    again = [torch.randint(len(open_PKR), (len(open_PKR),), generator=generator) for _ in range(DRAWS)]
    drawn_DKR = torch.stack([step_shares(open_PKR[rows].nanmean(0)) for rows in again])
    low_KR, high_KR = drawn_DKR.nanquantile(0.025, 0), drawn_DKR.nanquantile(0.975, 0)
    prompt_K = torch.zeros(0)
    if all(name in names for name in PAIR):
        identity, prompt = (share_KR[:, names.index(name)] for name in PAIR)
        if not (identity + prompt).isnan().any():
            prompt_K = weights_from_shares(prompt, identity)
    estimates = {name: [estimate(column) for column in open_PKR[..., r].T] for r, name in enumerate(names)}
    return Decisions(
        tuple(names), tuple(sigmas), len(open_PKR), branches, estimates, share_KR, low_KR, high_KR, prompt_K
    )


def step_shares(open_KR: Tensor) -> Tensor:
    """What each step decides of the variance that was open at first: [K, R], each column summing to 1.

    open_KR [K, R] >= 0, before each step. True values never rise from step to step, so the measured ones are first
    replaced by the falling sequence closest to them. The last step, which is deterministic, decides 0. NaN for a
    reward without variance.
    """
    falling_KR = torch.stack([_falling(column_K) for column_K in open_KR[:-1].T], -1)
    nothing_1R = torch.zeros_like(falling_KR[:1])
    ends_KR = torch.cat([falling_KR, nothing_1R, nothing_1R])
    whole_R = torch.where(falling_KR[0] > 0, falling_KR[0], torch.nan)
    return (ends_KR[:-1] - ends_KR[1:]) / whole_R


def _falling(values_K: Tensor) -> Tensor:
    if values_K.isnan().any():
        return torch.full_like(values_K, torch.nan)
    return torch.from_numpy(isotonic_regression(values_K.numpy(), increasing=False).x.copy())


def weights_from_shares(prompt_K: Tensor, identity_K: Tensor) -> Tensor:
    """The prompt reward's weight at each step: its share there over the sum of both shares.

    prompt_K, identity_K [K] >= 0, as ``step_shares`` gives them -> [K] in [0, 1]. Shares are first averaged with those
    of the steps beside, 1 : 2 : 1, since the ratio of two small ones is mostly noise. The last step, which decides
    nothing, and one about which nothing is decided have the weight of the step before (the first: 0.5).
    """
    prompt, identity = _averaged(prompt_K[:-1]), _averaged(identity_K[:-1])
    weights, before = [], 0.5
    for p, i in zip(prompt, identity, strict=True):
        before = p / (p + i) if p + i > 0 else before
        weights.append(before)
    return torch.tensor([*weights, before], dtype=torch.float64)


def _averaged(shares_K: Tensor) -> list[float]:
    """With their neighbours, which are one at either end."""
    shares, averaged = shares_K.tolist(), []
    for k, share in enumerate(shares):
        beside = shares[max(0, k - 1) : k] + shares[k + 1 : k + 2]
        averaged.append((2 * share + sum(beside)) / (2 + len(beside)))
    return averaged


def _trajectory(inputs: AnalysisInputs, cfg: GrpoConfig, numbers: list[int], sigmas: Tensor, cond: Condition) -> Tensor:
    """States [K - 1, P, L, C] before each stochastic step of one trajectory a task."""
    policy, sampling = inputs.policy, cfg.sampling
    start = _fresh_noise(inputs, "start", numbers, 1)(0).to(policy.device, policy.dtype)
    roll = rollout(
        functools.partial(policy.velocity, cond=cond),
        start,
        sigmas,
        all_steps(sampling.steps, len(numbers)),
        _fresh_noise(inputs, "trajectory", numbers, 1),
        sampling.kind,
        sampling.noise_level,
    )
    return roll.before_MLC.view(sampling.steps - 1, *start.shape)


def _fresh_noise(inputs: AnalysisInputs, what: str, numbers: list[int], times: int) -> Noise:
    """Standard normal draws for ``times`` samples of each task, a stream of its own a task."""
    streams = [derive(inputs.seed, "decisions", what, number) for number in numbers]
    shape = (times, *inputs.policy.latent_shape)
    return lambda k: torch.cat([torch.randn(shape, generator=stream) for stream in streams])


def _variance(scores_PBR: Tensor) -> Tensor:
    """Unbiased, over the branches that could be scored: [P, R]; NaN for fewer than two."""
    scores_PBR = scores_PBR.double()
    count_PR = (~scores_PBR.isnan()).sum(1)
    gap_PBR = scores_PBR - scores_PBR.nanmean(1, keepdim=True)
    return torch.where(count_PR > 1, gap_PBR.square().nansum(1) / (count_PR - 1).clamp(min=1), torch.nan)
