"""What scores pictures in an evaluation, and what a metric says of base against trained.

Summaries and the guard's checks keep a metric as ``{role, axis, base, trained, difference, low, high}``; a number that
does not exist is NaN, or None once written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from cgrpo.evaluation.statistics.paired import paired_difference
from cgrpo.files import to_float
from cgrpo.rewards import Reward
from cgrpo.rewards.fingerprint import reward_fingerprint
from cgrpo.rewards.measures import copy_measures
from cgrpo.statistics import Interval

Role = Literal["reward", "judge", "guard"]
Metric = Mapping[str, Any]  # as the module says


@dataclass(frozen=True)
class Scorer:
    """A reward that is trained on, a judge that never is, or a guard that watches for a shortcut."""

    role: Role
    score: Reward


def as_rewards(rewards: Mapping[str, Reward]) -> dict[str, Scorer]:
    """The rewards trained on, as scorers."""
    return {name: Scorer("reward", reward) for name, reward in rewards.items()}


def make_scorers(rewards: Mapping[str, Reward], judges: Mapping[str, Reward], copies: float = 0.0) -> dict[str, Scorer]:
    """The rewards trained on, judges, and measures of copying; ``copies`` as evaluation.copies."""
    judged = {name: Scorer("judge", judge) for name, judge in judges.items()}
    measured = {name: Scorer("guard", measure) for name, measure in copy_measures(copies).items()}
    return as_rewards(rewards) | judged | measured


def metric_of(scorer: Scorer, base_N: Tensor, trained_N: Tensor, cluster_N: Tensor) -> dict[str, Any]:
    """The scores of two arms' pictures of the same N tasks, as a metric."""
    change = paired_difference(base_N, trained_N, cluster_N)
    return {
        "role": scorer.role,
        "axis": scorer.score.axis,
        "base": change.base,
        "trained": change.trained,
        "difference": change.difference,
        "low": change.low,
        "high": change.high,
    }


def interval_of(metric: Metric) -> Interval:
    """The interval of a metric's difference."""
    return Interval(to_float(metric.get("low")), to_float(metric.get("high")))


def movement(metric: Metric) -> Literal["rose", "fell", "unclear"]:
    """ "rose" or "fell" when the whole interval lies on one side of 0, else "unclear"."""
    change = interval_of(metric)
    return "rose" if change.above() else "fell" if change.below() else "unclear"


def describe_metrics(scorers: Mapping[str, Scorer]) -> dict[str, dict[str, str]]:
    """``{name: {role, axis, unit, checkpoint}}``, as benchmark.json has them; ``checkpoint`` is a fingerprint."""
    return {
        name: {
            "role": scorer.role,
            "axis": scorer.score.axis,
            "unit": scorer.score.unit,
            "checkpoint": reward_fingerprint(scorer.score),
        }
        for name, scorer in scorers.items()
    }
