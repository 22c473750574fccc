"""What the guard concludes from its numbers: pure functions of the rows of guard.jsonl.

A row is one check: ``{iteration, unit, metrics: {name: {role, axis, base, trained, difference, low, high, spread,
failed}}, warnings, best}``. low and high bound the 95 % interval of the difference, over the subjects or, where there
is one alone, its prompts (unit); spread is the standard deviation of the base's scores over tasks; failed counts the
tasks left out because either could not be scored. A number that does not exist is NaN, or None once it was written.
Nothing is kept beside the rows: which check was the best and whether to stop follow from them, so a resumed run
concludes what the uninterrupted one does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cgrpo.evaluation.metrics import movement
from cgrpo.files import to_float

Row = Mapping[str, Any]
Metrics = Mapping[str, Row]

AXES = ("identity", "prompt")
CURES = {
    "hacked": "another reward for that axis, fewer iterations or a lower training.learning_rate; best/ is kept",
    "fell": "give its axis more weight, or lower training.learning_rate; best/ is kept",
    "moved": "look at the pictures in samples/; lower training.learning_rate if they changed for the worse",
    "silent": "cgrpo data check says what the tasks lack for it",
}
FAR = 0.5  # of the base's spread over tasks: where a shift of a guard is worth a word


@dataclass(frozen=True)
class Warn:
    """One plain sentence; ``kind`` is the same when the same is wrong with other numbers."""

    kind: tuple[str, ...]
    text: str

    @property
    def cure(self) -> str:
        """What to change, in a clause."""
        return CURES[self.kind[0]]


def shift(metric: Row) -> float:
    """The difference in units of the base's spread; 0 for no difference, infinite where the base has no spread."""
    difference, spread = to_float(metric["difference"]), to_float(metric["spread"])
    if difference == 0 or math.isnan(difference):
        return difference
    return difference / spread if spread > 0 else math.copysign(math.inf, difference)


# -- the best check --------------------------------------------------------------------------------


def gains(metrics: Metrics) -> dict[str, float]:
    """By axis the judges' shift from the base, averaged over its judges.

    An axis without a judge is left out; where no axis has one the rewards stand in, since nothing else tells.
    """
    judged = any(metric["role"] == "judge" and metric["axis"] in AXES for metric in metrics.values())
    role, found = "judge" if judged else "reward", {}
    for axis in AXES:
        shifts = [shift(metric) for metric in metrics.values() if metric["role"] == role and metric["axis"] == axis]
        if shifts:
            found[axis] = sum(shifts) / len(shifts)
    return found


def rank(metrics: Metrics) -> tuple[float, float]:
    """What checks are ordered by: the lesser gain, then the sum of both. A score that is missing is last.

    The greatest is on the Pareto front: whatever beats it on one axis without losing on the other would rank higher.
    """
    values = list(gains(metrics).values())
    if not values or any(map(math.isnan, values)):
        return -math.inf, -math.inf
    return min(values), sum(values)


def is_best(metrics: Metrics, before: Sequence[Row]) -> bool:
    """Whether a check beats the base on all axes and the checks ``before`` it; the first of equals stays the best."""
    best, here = best_row(before), rank(metrics)
    return here[0] > 0 and (best is None or here > rank(best["metrics"]))


def best_row(rows: Sequence[Row]) -> Row | None:
    """The best check so far; None where none has beaten the base."""
    return next((row for row in reversed(rows) if row["best"]), None)


def exhausted(rows: Sequence[Row], patience: int) -> bool:
    """Whether the last ``patience`` checks all brought no better one; never with a patience of 0."""
    return 0 < patience <= len(rows) and not any(row["best"] for row in rows[-patience:])


def best_in_words(rows: Sequence[Row]) -> str:
    """One sentence on what is kept, and why."""
    best = best_row(rows)
    if best is None:
        return "no check was better than the base on all axes, so no best adapter is kept"
    told = " and ".join(f"{axis} by {gain:.2g}" for axis, gain in gains(best["metrics"]).items())
    return f"the best check is that of iteration {best['iteration']}: up in {told} of the base's spread over tasks"


def stopped_in_words(rows: Sequence[Row], patience: int, iteration: int) -> str:
    """One sentence on why the run ended after ``iteration`` iterations."""
    best = best_row(rows)
    other = "the base" if best is None else f"that of iteration {best['iteration']}"
    return f"stopped early at iteration {iteration}: {patience} checks in a row brought none better than {other}"


# -- warnings --------------------------------------------------------------------------------------


def warnings(metrics: Metrics) -> list[Warn]:
    """What the numbers of one check give reason to say, most serious first."""
    judges = {name: m for name, m in metrics.items() if m["role"] == "judge"}
    found = [_fallen(name, judge, metrics) for name, judge in judges.items() if movement(judge) == "fell"]
    found.sort(key=lambda warn: warn.kind[0] != "hacked")
    found += [_moved(name, m) for name, m in metrics.items() if m["role"] == "guard" and _far(m)]
    silent = [name for name, m in metrics.items() if math.isnan(to_float(m["difference"]))]
    return found + [Warn(("silent", name), f"{name} could not score any held-out task") for name in silent]


def _fallen(name: str, judge: Row, metrics: Metrics) -> Warn:
    rewards = {
        key: m
        for key, m in metrics.items()
        if m["role"] == "reward" and m["axis"] == judge["axis"] and movement(m) == "rose"
    }
    fall = f"{name} fell by {abs(judge['difference']):.2g}"
    if not rewards:
        low, high = judge["low"], judge["high"]
        return Warn(("fell", name), f"{fall} against the base (95 % interval {low:+.2g} to {high:+.2g})")
    rise = " and ".join(f"{key} reward rose by {m['difference']:+.2g}" for key, m in rewards.items())
    return Warn(("hacked", name), f"{rise} while {fall}: the reward is being hacked")


def _far(metric: Row) -> bool:
    """A guard far from the base. That a picture is less of a copy than before is no cause for concern."""
    moved = movement(metric)
    return abs(shift(metric)) > FAR and (moved == "rose" or (moved == "fell" and metric["axis"] == "picture"))


def _moved(name: str, metric: Row) -> Warn:
    change = f"{name} {movement(metric)} from {metric['base']:.3g} to {metric['trained']:.3g}"
    size = f"by more than half of the base's spread over tasks ({to_float(metric['spread']):.2g})"
    end = "" if metric["axis"] == "picture" else ": pictures come closer to copies of their references"
    return Warn(("moved", name), f"{change}, {size}{end}")


def news(row: Row, before: Sequence[Row]) -> list[Warn]:
    """The warnings of a check that the check just before it did not give, whatever their numbers."""
    known = {warn.kind for warn in warnings(before[-1]["metrics"])} if before else set()
    return [warn for warn in warnings(row["metrics"]) if warn.kind not in known]
