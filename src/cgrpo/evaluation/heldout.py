"""Base against trained on held-out tasks: the toy world's, or those of a dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cgrpo.config import Config
from cgrpo.data import ToyboxSource, toy_source
from cgrpo.evaluation.benchmark.suite import Suite, SuiteRow
from cgrpo.evaluation.benchmark.toybox import task_rows
from cgrpo.evaluation.metrics import Scorer, describe_metrics, metric_of
from cgrpo.evaluation.sampling import Processes, best_of, sample_tasks
from cgrpo.evaluation.statistics.paired import Clusters, cluster
from cgrpo.policies.base import Policy
from cgrpo.rewards import scored
from cgrpo.scores import PROPERTY, ScoreRow, protocol_of
from cgrpo.types import Batch

ARMS = ("base", "trained")
MANY = 4096  # more noises than a task is ever drawn from: no two seeds share one
EXAMPLES = 4  # tasks shown with the largest, the median and the smallest gain each


@dataclass(frozen=True)
class Tasks:
    """Held-out tasks: ``rows`` say of each what a row of scores does, ``clusters`` which are one observation.

    ``name`` in words, ``source`` "test", "validation" or a file's name, ``conditions`` as in ``Suite``.
    """

    batch: Batch
    rows: list[SuiteRow]
    clusters: Clusters
    name: str
    source: str
    conditions: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.batch)


@dataclass(frozen=True)
class HeldOut:
    """The held-out tasks, both arms' pictures, and every score by metric and arm."""

    tasks: Tasks
    base_NHWC: Tensor
    trained_NHWC: Tensor
    scores: dict[str, dict[str, Tensor]]

    @property
    def batch(self) -> Batch:
        return self.tasks.batch


def heldout_tasks(cfg: Config) -> tuple[ToyboxSource, Tasks]:
    """The toy world's test (or validation) tasks, the same for every run."""
    settings = cfg.evaluation
    prompts, world = settings.prompts_per_subject, cfg.data.source
    source = toy_source(world, 0, settings.split, cfg.data.dial, prompts)
    batch = source.batch(range(settings.subjects * prompts))
    rows = task_rows(batch.spec or (), prompts)
    conditions = {"benchmark": world, "split": settings.split, "dial": cfg.data.dial}
    conditions |= {"subjects": settings.subjects, "prompts": prompts}
    clusters = Clusters(torch.arange(len(batch)) // prompts, "subjects")
    return source, Tasks(batch, rows, clusters, world.capitalize(), settings.split, conditions)


def tasks_of(suite: Suite, batch: Batch) -> Tasks:
    """A dataset's first tasks, ``batch``, with their rows of its ``suite``."""
    rows = suite.rows[: len(batch)]
    clusters = cluster([row.subject for row in rows], batch.prompts)
    return Tasks(batch, rows, clusters, suite.name, suite.name, suite.conditions)


Progress = Callable[[int], object]


def sample_arms(
    cfg: Config, tasks: Tasks, policy: Policy, processes: Processes, progress: Progress = lambda count: None
) -> dict[str, Tensor]:
    """The held-out tasks' pictures [N, H, W, 3] with the adapter off and on, from the same noise; on every process.

    With ``evaluation.best_of`` above 1 the latter are [K, N, H, W, 3]: the first from the base's noise, the others from
    noises that the run's seed chooses. ``progress`` is called with the number of pictures that were just made.
    """
    sigmas = policy.sigmas(cfg.sampling.steps, cfg.sampling.shift)

    def sample(draw: int) -> Tensor:
        return sample_tasks(policy, sigmas, tasks.batch, cfg.evaluation.batch, processes, draw, progress)

    with policy.reference():
        base_NHWC = sample(0)
    trained = [sample(draw) for draw in _draws(cfg)]
    return dict(zip(ARMS, (base_NHWC, trained[0] if len(trained) == 1 else torch.stack(trained)), strict=True))


def _draws(cfg: Config) -> list[int]:
    """Which noises of a task the trained policy starts from."""
    return [0, *(cfg.training.seed * MANY + k for k in range(1, cfg.evaluation.best_of))]


def score_arms(
    tasks: Tasks, arms: dict[str, Tensor], scorers: dict[str, Scorer], progress: Progress = lambda count: None
) -> HeldOut:
    """Both arms' pictures scored with every scorer; of several of a task, the one that the rewards choose.

    ``progress`` is called with 1 after each scorer.
    """
    batch = tasks.batch
    if arms["trained"].ndim > arms["base"].ndim:
        arms = arms | {"trained": _chosen(arms["trained"], batch, scorers)}
    scores = {}
    for name, scorer in scorers.items():
        scores[name] = {arm: scored(name, scorer.score, images_NHWC, batch) for arm, images_NHWC in arms.items()}
        progress(1)
    base_NHWC, trained_NHWC = (arms[arm] for arm in ARMS)
    return HeldOut(tasks, base_NHWC, trained_NHWC, scores)


def _chosen(images_KNHWC: Tensor, batch: Batch, scorers: dict[str, Scorer]) -> Tensor:
    rewards = {name: scorer.score for name, scorer in scorers.items() if scorer.role == "reward"}
    columns = [
        torch.stack([scored(name, reward, images_NHWC, batch) for images_NHWC in images_KNHWC])
        for name, reward in rewards.items()
    ]
    return images_KNHWC[best_of(torch.stack(columns, dim=-1)), torch.arange(len(batch))]


def summarise(result: HeldOut, scorers: dict[str, Scorer], mask_N: Tensor | None = None) -> dict[str, Any]:
    """``{metric: {role, axis, base, trained, difference, low, high}}``, over the tasks in ``mask_N`` if given."""
    rows = slice(None) if mask_N is None else mask_N
    arms = {name: (arm["base"][rows], arm["trained"][rows]) for name, arm in result.scores.items()}
    return {
        name: metric_of(scorer, *arms[name], result.tasks.clusters.number_N[rows]) for name, scorer in scorers.items()
    }


def prompt_kinds(result: HeldOut) -> dict[str, Tensor]:
    """Which tasks are of which kind, bool [N]: "plain", and those that ask for a property and compete with identity.

    Empty where there are none of these.
    """
    property_N = torch.tensor([row.prompt_kind == PROPERTY for row in result.tasks.rows], dtype=torch.bool)
    return {"plain": ~property_N, PROPERTY: property_N} if property_N.any() and not property_N.all() else {}


def tasks_by_gain(result: HeldOut, metrics: Mapping[str, Any], each: int = EXAMPLES) -> dict[str, list[int]]:
    """``each`` tasks with the largest, around the median, and with the smallest gain, by those words; none twice.

    The rule is fixed before anything is seen, and shows what got worse, too. A task's gain: trained less base, in
    standard deviations of the base over tasks, meaned over the judges (over the rewards where there is no judge).
    A task that one of them could not score is left out. ``metrics``: as ``summarise`` has them.
    """
    shown = [name for name in metrics if name in result.scores]
    judges = [name for name in shown if metrics[name]["role"] == "judge"] or shown
    gains = [(result.scores[name]["trained"] - result.scores[name]["base"]).double() for name in judges]
    spreads = [result.scores[name]["base"].double() for name in judges]
    scales = [(base[base == base].std().item() if (base == base).sum() > 1 else 0.0) or 1.0 for base in spreads]
    gain_N = torch.stack([gain / scale for gain, scale in zip(gains, scales, strict=True)]).mean(dim=0)
    order = [n for n in gain_N.argsort(descending=True, stable=True).tolist() if gain_N[n] == gain_N[n]]
    each = min(each, len(order) // 3)
    middle = (len(order) - each) // 2
    first = {"largest": 0, "median": middle, "smallest": len(order) - each}
    return {f"{name} gain": order[place : place + each] for name, place in first.items()}


def score_rows(result: HeldOut, scorers: dict[str, Scorer]) -> list[ScoreRow]:
    """Every score as a row, by metric and arm."""
    return [
        ScoreRow(
            method=arm,
            subject=task.subject,
            prompt_index=task.prompt_index,
            prompt=task.prompt,
            seed=0,
            metric=metric,
            protocol=protocol_of(scorer.role, scorer.score.axis),
            score=None if score != score else round(score, 6),
            picture="",
            error=f"{metric} could not score it" if score != score else None,
            subject_kind=task.subject_kind,
            prompt_kind=task.prompt_kind,
        )
        for metric, scorer in scorers.items()
        for arm in ARMS
        for task, score in zip(result.tasks.rows, result.scores[metric][arm].tolist(), strict=True)
    ]


def describe_tasks(cfg: Config, tasks: Tasks, scorers: dict[str, Scorer]) -> dict[str, Any]:
    """What ``benchmark.json`` says of these rows. Their pictures are kept nowhere."""
    conditions = {**tasks.conditions, "benchmark": f"{tasks.conditions['benchmark']}, after training"}
    if cfg.evaluation.best_of > 1:
        conditions["best_of"] = cfg.evaluation.best_of
    return {
        "benchmark": f"{tasks.name}, after training",
        "conditions": conditions,
        "metrics": describe_metrics(scorers),
    }
