"""The held-out guard: is a run hacking its rewards, and which of its states was the best?

A check is a row of guard.jsonl: ``{iteration, unit, metrics: {name: {role, axis, base, trained, difference, low, high,
spread, failed}}, warnings, best}``. low and high bound the 95 % interval of the difference, over subjects or, where
there is one alone, its prompts (unit). spread is the standard deviation of the base's scores over tasks; failed counts
the tasks left out because either arm could not be scored. A number that does not exist is NaN, or None once written.

What follows from the checks is computed by pure functions of them. Nothing is kept besides: a resumed run concludes
what the uninterrupted one does.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cgrpo.evaluation.metrics import Metric, Scorer, metric_of, movement
from cgrpo.evaluation.sampling import Processes, gather_parts, parts_in_turns
from cgrpo.evaluation.statistics.paired import clusters_of
from cgrpo.files import to_float
from cgrpo.policies.base import Policy
from cgrpo.rewards import scored
from cgrpo.types import Batch

Check = Mapping[str, Any]  # as the module says
Metrics = Mapping[str, Metric]

AXES = ("identity", "prompt")
CURES = {
    "hacked": "another reward for that axis, fewer iterations or a lower training.learning_rate; best/ is kept",
    "fell": "give its axis more weight, or lower training.learning_rate; best/ is kept",
    "moved": "look at the pictures in samples/; lower training.learning_rate if they changed for the worse",
    "silent": "cgrpo data check says what the tasks lack for it",
}
FAR = 0.5  # standard deviations of the base over tasks: a larger shift of a guard gives a warning


class Guard:
    """The held-out tasks and their scorers. The base's pictures are made and scored once, at the first check.

    Tasks are worked on in parts of at most ``chunk``, the same whatever the number of processes; these take turns.
    """

    def __init__(
        self,
        policy: Policy,
        batch: Batch,
        scorers: dict[str, Scorer],
        sigmas: Tensor,
        processes: Processes,
        chunk: int,
    ):
        self.policy, self.batch, self.scorers, self.sigmas = policy, batch, scorers, sigmas
        self.processes = processes
        self.parts = policy.alike(batch, chunk)
        self.clusters = clusters_of(batch)
        self._base: dict[str, Tensor] = {}

    def check(self, iteration: int, before: Sequence[Check]) -> dict[str, Any]:
        """The check after ``iteration`` iterations, ``before`` being the earlier ones; the same on all processes.

        The random state is the same afterwards.
        """
        with untouched(self.policy.device):
            if not self._base:
                with self.policy.reference():
                    self._base = self._scores()
            trained = self._scores()
        metrics = {name: self._metric(scorer, self._base[name], trained[name]) for name, scorer in self.scorers.items()}
        return {
            "iteration": iteration,
            "unit": self.clusters.unit,
            "metrics": metrics,
            "warnings": [warning.text for warning in warnings(metrics)],
            "best": is_best(metrics, before),
        }

    def report(self) -> dict[str, float]:
        """What the scorers report of the last check, on this process; the next iteration's report is its own again."""
        numbers = {}
        for name, scorer in self.scorers.items():
            numbers |= {f"guard/{name}/{key}": value for key, value in scorer.score.report().items()}
        return numbers

    def _metric(self, scorer: Scorer, base_N: Tensor, trained_N: Tensor) -> dict[str, Any]:
        valid_N = base_N[~base_N.isnan()].double()
        return metric_of(scorer, base_N, trained_N, self.clusters.number_N) | {
            "spread": valid_N.std().item() if len(valid_N) > 1 else math.nan,
            "failed": int((base_N.isnan() | trained_N.isnan()).sum()),
        }

    def _scores(self) -> dict[str, Tensor]:
        """Every scorer's scores [N] of all tasks, by the policy as it is."""
        own = [torch.zeros(0, len(self.scorers))]
        for number, images_NHWC in parts_in_turns(self.policy, self.sigmas, self.batch, self.parts, self.processes):
            batch = self.batch.select(self.parts[number])
            torch.manual_seed(number)  # for scorers that draw: the same in every check, on whichever process
            columns = [scored(name, scorer.score, images_NHWC, batch) for name, scorer in self.scorers.items()]
            own.append(torch.stack(columns, -1))
        scores_NM = gather_parts(torch.cat(own), self.parts, self.processes)
        return dict(zip(self.scorers, scores_NM.unbind(1), strict=True))


@contextmanager
def untouched(device: torch.device) -> Iterator[None]:
    """Afterwards the global random states are what they were."""
    python, numpy = random.getstate(), np.random.get_state()
    cuda = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=cuda):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


# -- the best check --------------------------------------------------------------------------------


def shift(metric: Metric) -> float:
    """The difference in standard deviations of the base; 0 for no difference, infinite where the base has no spread."""
    difference, spread = to_float(metric["difference"]), to_float(metric["spread"])
    if difference == 0 or math.isnan(difference):
        return difference
    return difference / spread if spread > 0 else math.copysign(math.inf, difference)


def gains(metrics: Metrics) -> dict[str, float]:
    """By axis the judges' shift from the base, averaged over its judges.

    An axis without a judge is left out; where no axis has one, the rewards stand in, since nothing else tells.
    """
    judged = any(metric["role"] == "judge" and metric["axis"] in AXES for metric in metrics.values())
    role = "judge" if judged else "reward"
    shifts = {
        axis: [shift(metric) for metric in metrics.values() if metric["role"] == role and metric["axis"] == axis]
        for axis in AXES
    }
    return {axis: sum(values) / len(values) for axis, values in shifts.items() if values}


def rank(metrics: Metrics) -> tuple[float, float]:
    """What checks are ordered by: the lesser gain, then the sum of both. A score that is missing is last.

    The greatest is on the Pareto front: whatever beats it on one axis without losing on the other would rank higher.
    """
    values = list(gains(metrics).values())
    if not values or any(map(math.isnan, values)):
        return -math.inf, -math.inf
    return min(values), sum(values)


def is_best(metrics: Metrics, before: Sequence[Check]) -> bool:
    """Whether a check beats the base on all axes and the checks ``before`` it; the first of equals stays the best."""
    best, here = best_check(before), rank(metrics)
    return here[0] > 0 and (best is None or here > rank(best["metrics"]))


def best_check(checks: Sequence[Check]) -> Check | None:
    """The best check so far; None where none has beaten the base."""
    return next((check for check in reversed(checks) if check["best"]), None)


def exhausted(checks: Sequence[Check], patience: int) -> bool:
    """Whether none of the last ``patience`` checks was better than those before; never with a patience of 0."""
    return 0 < patience <= len(checks) and not any(check["best"] for check in checks[-patience:])


def best_in_words(checks: Sequence[Check]) -> str:
    """One sentence on which checkpoint is kept. SD: standard deviations of the base's scores over tasks."""
    best = best_check(checks)
    if best is None:
        return "no check was better than the base on all axes, so no best adapter is kept"
    change = ", ".join(f"{axis} {gain:+.2f} SD" for axis, gain in gains(best["metrics"]).items())
    return f"best checkpoint: iteration {best['iteration']} ({change})"


def stopped_in_words(checks: Sequence[Check], patience: int, iteration: int) -> str:
    """One sentence on why the run ended after ``iteration`` iterations."""
    best = best_check(checks)
    other = "the base" if best is None else f"that of iteration {best['iteration']}"
    return f"stopped early at iteration {iteration}: {patience} checks in a row brought none better than {other}"


# -- warnings --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GuardWarning:
    """One plain sentence; ``kind`` is the same when the same is wrong with other numbers."""

    kind: tuple[str, ...]
    text: str

    @property
    def cure(self) -> str:
        """What to change, in a clause."""
        return CURES[self.kind[0]]


def warnings(metrics: Metrics) -> list[GuardWarning]:
    """What is wrong by the numbers of one check, most serious first."""
    judges = {name: metric for name, metric in metrics.items() if metric["role"] == "judge"}
    fallen = [_fallen(name, judge, metrics) for name, judge in judges.items() if movement(judge) == "fell"]
    fallen.sort(key=lambda warning: warning.kind[0] != "hacked")
    moved = [_moved(name, metric) for name, metric in metrics.items() if metric["role"] == "guard" and _far(metric)]
    silent = [name for name, metric in metrics.items() if math.isnan(to_float(metric["difference"]))]
    return [
        *fallen,
        *moved,
        *(GuardWarning(("silent", name), f"{name} could not score any held-out task") for name in silent),
    ]


def new_warnings(check: Check, before: Sequence[Check]) -> list[GuardWarning]:
    """The warnings of a check that the check just before it did not give, whatever their numbers."""
    given = {warning.kind for warning in warnings(before[-1]["metrics"])} if before else set()
    return [warning for warning in warnings(check["metrics"]) if warning.kind not in given]


def _fallen(name: str, judge: Metric, metrics: Metrics) -> GuardWarning:
    risen = {
        key: metric
        for key, metric in metrics.items()
        if metric["role"] == "reward" and metric["axis"] == judge["axis"] and movement(metric) == "rose"
    }
    fall = f"{name} fell by {abs(judge['difference']):.2g}"
    if not risen:
        low, high = judge["low"], judge["high"]
        return GuardWarning(("fell", name), f"{fall} against the base (95 % interval {low:+.2g} to {high:+.2g})")
    rise = " and ".join(f"{key} reward rose by {metric['difference']:+.2g}" for key, metric in risen.items())
    return GuardWarning(("hacked", name), f"{rise} while {fall}: the reward is being hacked")


def _far(metric: Metric) -> bool:
    """A guard far from the base. That a picture is less of a copy than before is no cause for concern."""
    moved = movement(metric)
    return abs(shift(metric)) > FAR and (moved == "rose" or (moved == "fell" and metric["axis"] == "picture"))


def _moved(name: str, metric: Metric) -> GuardWarning:
    change = f"{name} {movement(metric)} from {metric['base']:.3g} to {metric['trained']:.3g}"
    size = f"by more than half the base's standard deviation over tasks ({to_float(metric['spread']):.2g})"
    end = "" if metric["axis"] == "picture" else ": pictures come closer to copies of their references"
    return GuardWarning(("moved", name), f"{change}, {size}{end}")
