"""What all analyses share: a policy with its tasks and rewards, groups drawn as its training draws them, estimates."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from cgrpo.algorithm import all_steps, integrate, rollout, sliding_window, window_start
from cgrpo.config import Config, GroupConfig
from cgrpo.data import GroupNoise, Source, task_indices
from cgrpo.errors import UserError
from cgrpo.evaluation.show.table import Table, interval, number
from cgrpo.policies.base import Policy
from cgrpo.rewards import Reward, scored
from cgrpo.statistics import Interval, student_interval
from cgrpo.training.forward.settings import ForwardConfig
from cgrpo.training.grpo.settings import GrpoConfig
from cgrpo.types import Batch, Condition, Rollout

PAIR = ("identity", "prompt")
OUTSIDE = -1  # an iteration that no run has, so its noise is in no run


@dataclass(frozen=True)
class Result:
    """The result of an analysis, as JSON, text and figure."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values by the fields' names, without tensors; NaN where there is none."""
        return {name: value for name, value in asdict(self).items() if not isinstance(value, Tensor)}

    def tables(self) -> list[Table]:
        raise NotImplementedError

    def draw(self, name: str) -> Figure:
        """``name``: of the policy, for the title."""
        raise NotImplementedError


@dataclass(frozen=True)
class Estimate(Interval):
    """A mean with Student's 95 % interval over ``count`` independent parts; NaN bounds for fewer than two."""

    mean: float
    count: int

    def __str__(self) -> str:
        bounds = "" if math.isnan(self.low) else f" [{interval(self.low, self.high, signed=False)}]"
        return f"{number(self.mean)}{bounds}"


def estimate(values_P: Tensor) -> Estimate:
    """The mean of [P] values; NaN among them are left out."""
    values = values_P[~values_P.isnan()].double()
    mean = values.mean().item() if len(values) else math.nan
    bounds = student_interval(mean, values.std().item() if len(values) > 1 else math.nan, len(values))
    return Estimate(bounds.low, bounds.high, mean, len(values))


def draw_estimates(axes: Axes, estimates: Sequence[Estimate], colour: str, label: str) -> None:
    """Draw a line through the means, in order, and a band of their intervals."""
    places = range(len(estimates))
    axes.plot(places, [one.mean for one in estimates], color=colour, marker="o", markersize=4, label=label)
    low, high = [one.low for one in estimates], [one.high for one in estimates]
    axes.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)


@dataclass(frozen=True)
class AnalysisInputs:
    """A policy as a run left it, or the base; its rewards; and the tasks of ``source``, trained on or held out.

    seed    which tasks, and all noise
    tick    called with the number of tasks that are done
    """

    cfg: Config
    policy: Policy
    rewards: dict[str, Reward]
    source: Source
    seed: int = 0
    tick: Callable[[int], object] = field(default=lambda done: None)

    def tasks(self, count: int) -> Batch:
        """``count`` of them, others for another seed."""
        return self.source.batch(task_indices(self.cfg.training.seed, self.seed, count, self.source.size))

    def score(self, x_NLC: Tensor, batch: Batch) -> Tensor:
        """Finished latents' scores [N, R], NaN where there is none; ``batch`` has N rows."""
        images_NHWC = self.policy.decode(x_NLC)
        return torch.stack([scored(name, reward, images_NHWC, batch) for name, reward in self.rewards.items()], -1)

    def pair(self) -> list[int]:
        """Where identity's and prompt's rewards stand. Raises UserError without both."""
        names = list(self.rewards)
        for name in PAIR:
            if name not in names:
                raise UserError(f"this analysis compares the rewards identity and prompt; the run has no {name!r}")
        return [names.index(name) for name in PAIR]


@dataclass(frozen=True)
class DrawnGroups:
    """Groups of the tasks ``numbers``, drawn as the run's training draws them.

    cond    a row per sample; x0_NLC the finished samples
    roll    the stochastic transitions, all of them; None on the forward process
    """

    numbers: list[int]
    cond: Condition
    x0_NLC: Tensor
    roll: Rollout | None
    scores_PGR: Tensor


def grouped(cfg: Config) -> GroupConfig:
    """The configuration as one that draws groups. Raises UserError for a method that doesn't."""
    if not isinstance(cfg, GroupConfig):
        raise UserError(f"method {cfg.method!r} draws no groups of samples; this analysis needs grpo or forward")
    return cfg


def draw_groups(inputs: AnalysisInputs, count: int) -> Iterator[DrawnGroups]:
    """``count`` groups, as many at a time as a forward takes; the policy stays as it is."""
    cfg, policy = grouped(inputs.cfg), inputs.policy
    batch = inputs.tasks(count)
    for numbers in policy.alike(batch, max(1, int(cfg.sampling.batch) // cfg.training.group_size)):
        tasks = batch.select(numbers)
        cond = policy.encode_parts(tasks, [range(len(numbers))])[0].repeat(cfg.training.group_size)
        x0_NLC, roll = _sample(inputs, numbers, cond)
        scores_NR = inputs.score(x0_NLC, tasks.repeat(cfg.training.group_size))
        inputs.tick(len(numbers))
        yield DrawnGroups(numbers, cond, x0_NLC, roll, scores_NR.view(len(numbers), cfg.training.group_size, -1))


def draw_scores(inputs: AnalysisInputs, count: int) -> Tensor:
    """Scores [P, G, R] of ``count`` groups, in the tasks' order."""
    rows: dict[int, Tensor] = {}
    for drawn in draw_groups(inputs, count):
        rows |= zip(drawn.numbers, drawn.scores_PGR, strict=True)
    return torch.stack([rows[number] for number in range(count)])


def _sample(inputs: AnalysisInputs, numbers: list[int], cond: Condition) -> tuple[Tensor, Rollout | None]:
    cfg, policy = grouped(inputs.cfg), inputs.policy
    noise = GroupNoise(inputs.seed, OUTSIDE, numbers, cfg.training.group_size, policy.latent_shape)
    velocity = functools.partial(policy.velocity, cond=cond)
    if isinstance(cfg, ForwardConfig):
        x_NLC = noise.initial(policy.dtype, shared=False).to(policy.device)
        grid = policy.sigmas(cfg.sampling.rollout_steps, cfg.sampling.shift)
        return integrate(velocity, x_NLC, grid, cfg.sampling.order), None
    if not isinstance(cfg, GrpoConfig):
        raise UserError(f"method {cfg.method!r}: this analysis knows how grpo and forward draw their groups alone")
    sampling, steps, window = cfg.sampling, cfg.sampling.steps, cfg.sampling.window
    x_NLC = noise.initial(policy.dtype).to(policy.device)
    plan = all_steps(steps, len(x_NLC))
    if window.type == "sliding":  # the groups drawn together stand for an iteration: the window is at all its places
        start = window_start(numbers[0], steps, window.size, window.stride)
        plan = sliding_window(steps, len(x_NLC), start, window.size)
    roll = rollout(
        velocity,
        x_NLC,
        policy.sigmas(steps, sampling.shift),
        plan,
        noise.step,
        sampling.kind,
        sampling.noise_level,
    )
    return roll.x_NLC, roll
