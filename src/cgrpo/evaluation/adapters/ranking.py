"""Which adapter of a series is best, which can't be told apart from it, and what is wrong with the others.

The rule. A task's gain on an axis is the shift of its judges from the base's picture, in standard deviations (SD) of
the base's scores over tasks; the rewards stand in where an axis has no judge. The best adapter has the greatest sum of
both gains among those that are fit: not memorised, with all layers of its siblings, and surely below the base on
neither axis. Whose sum differs from the best one's by more than chance is told apart: Student's interval of the paired
difference, over subjects or one subject's prompts, at 95 % for all pairs together (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any, Literal

import torch
from torch import Tensor

from cgrpo.errors import UserError
from cgrpo.evaluation.adapters.pictures import PLAIN
from cgrpo.evaluation.adapters.series import BASE
from cgrpo.evaluation.sampling import FLAT
from cgrpo.evaluation.statistics.cells import Cells, Pair, gather, pair_means
from cgrpo.evaluation.statistics.paired import Clusters, Unit, cluster, paired_difference
from cgrpo.files import without_nan
from cgrpo.scores import Column, ScoreRow
from cgrpo.statistics import LEVEL, Interval

Kind = Literal["memorised", "incomplete", "prompt lost", "subject lost", "leaked", "undertrained"]
AXES = ("identity", "prompt")
UNFIT: tuple[Kind, ...] = ("memorised", "incomplete", "prompt lost", "subject lost")

# In SD of the base over tasks: less may be sure, but no reason to set an adapter aside.
FAR = 0.5  # of copy_paste and diversity, as the guard's of its measures
LOST = 0.2  # of the judges of an axis
LEAKED = 0.75  # of the way from the base's pictures of prompts without the subject to its pictures of the tasks
UNCHANGED = 0.2  # of the distance between two seeds' pictures of the base


@dataclass(frozen=True)
class Gain(Interval):
    """A mean shift from the base, in SD of the base over tasks, with its 95 % interval."""

    value: float


NOWHERE = Gain(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Fault:
    """What is wrong with an adapter: ``kind`` in a word or two, ``text`` with the numbers."""

    kind: Kind
    text: str


@dataclass(frozen=True)
class Assessment:
    """What the pictures of an adapter say.

    gains     by axis; ``total`` is their sum
    measures  gains of copy_paste and diversity
    changed   distance to the base's pictures, in distances between two seeds of the base
    behind    total less the best one's, with the interval at 95 % for all pairs together; None for the best
    tied      whether it can't be told apart from the best
    """

    name: str
    gains: dict[str, Gain]
    total: Gain
    measures: dict[str, Gain]
    changed: float
    faults: list[Fault]
    behind: Gain | None = None
    tied: bool = False

    @property
    def fit(self) -> bool:
        return not any(fault.kind in UNFIT for fault in self.faults)


@dataclass(frozen=True)
class Ranking:
    """The adapters in the order of the series. ``best``: the name of the best, None where none is fit.

    unit, clusters, tasks   what the intervals are over, how many of them, and of how many tasks
    metrics                 by axis the metrics that the gains are of
    """

    best: str | None
    adapters: list[Assessment]
    unit: Unit
    clusters: int
    tasks: int
    metrics: dict[str, list[str]] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Assessment:
        return next(one for one in self.adapters if one.name == name)

    @property
    def tied(self) -> list[str]:
        """The best and those that can't be told apart from it, in the order of the series."""
        return [one.name for one in self.adapters if one.tied]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; None for NaN."""
        return without_nan(asdict(self) | {"tied": self.tied})


def rank_adapters(
    rows: Iterable[ScoreRow], names: Sequence[str], roles: Mapping[str, str], missing: Mapping[str, str]
) -> Ranking:
    """Rank the adapters called ``names`` by their scores and the base's.

    roles     "judge", "reward" or "guard" by metric
    missing   by adapter, in words, the layers that it lacks or that the base has no place for

    Raises UserError where no metric of identity or of the prompt has scores.
    """
    cells = gather(rows)
    columns = _columns(cells, roles)
    if not columns:
        raise UserError("no score of identity or of the prompt", "choose metrics with --metric")
    tasks = _tasks(cells, [column for some in columns.values() for column in some])
    clusters = cluster([pair.subject for pair in tasks], [str(pair.prompt) for pair in tasks])
    gains = {name: _gains(cells, columns, name, tasks) for name in names}
    totals = {name: torch.stack(list(gains[name].values())).sum(0) for name in names}
    adapters = []
    for name in names:
        by_axis = {axis: _mean(gain_N, clusters) for axis, gain_N in gains[name].items()}
        measured = {key: _measured(cells, key, name, tasks, clusters) for key in ("copy_paste", "diversity")}
        changed = _changed(cells, name, tasks)
        faults = _faults(by_axis, measured, changed, _leak(cells, columns, name, tasks), missing.get(name, ""))
        adapters.append(Assessment(name, by_axis, _mean(totals[name], clusters), measured, changed, faults))
    best = max((one for one in adapters if one.fit), key=lambda one: _ordered(one.total.value), default=None)
    shown = {axis: [column.label for column in some] for axis, some in columns.items()}
    found = Ranking(best.name if best else None, adapters, clusters.unit, clusters.count, len(tasks), shown)
    return found if best is None else _compared(found, best, totals, clusters)


def _compared(ranking: Ranking, best: Assessment, totals: Mapping[str, Tensor], clusters: Clusters) -> Ranking:
    """The ranking with what each adapter is behind the best. An unfit one is never in the best one's set."""
    level = 1 - (1 - LEVEL) / max(len(ranking.adapters) - 1, 1)
    adapters = []
    for one in ranking.adapters:
        behind = None
        if one.name != best.name:
            behind = _mean(totals[one.name] - totals[best.name], clusters, level)
        tied = one.fit and (behind is None or not (behind.below() or math.isnan(behind.value)))
        adapters.append(Assessment(**{**vars(one), "behind": behind, "tied": tied}))
    return Ranking(**{**vars(ranking), "adapters": adapters})


def _columns(cells: Cells, roles: Mapping[str, str]) -> dict[str, list[Column]]:
    """By axis the judges, or the rewards where there is none; without an axis that has neither."""
    columns = {}
    for axis in AXES:
        scored = [column for column in cells if column.axis == axis and BASE in cells[column]]
        judges = [column for column in scored if roles.get(column.metric) == "judge"]
        if judges or scored:
            columns[axis] = judges or scored
    return columns


def _tasks(cells: Cells, columns: Sequence[Column]) -> list[Pair]:
    """The tasks that the base has every score of."""
    means = [pair_means(cells[column][BASE]) for column in columns]
    return [pair for pair in means[0] if pair.prompt_kind != PLAIN and all(pair in some for some in means)]


def _shift(cells: Cells, column: Column, name: str, tasks: Sequence[Pair]) -> Tensor:
    """float64 [N]: an adapter's scores less the base's, in SD of the base over tasks; NaN = no score."""
    base_N, own_N = (
        torch.tensor([means.get(pair, math.nan) for pair in tasks], dtype=torch.float64)
        for means in (pair_means(cells.get(column, {}).get(arm, {})) for arm in (BASE, name))
    )
    return (own_N - base_N) / base_N[~base_N.isnan()].std().clamp(min=FLAT)


def _gains(cells: Cells, columns: Mapping[str, list[Column]], name: str, tasks: Sequence[Pair]) -> dict[str, Tensor]:
    """By axis float64 [N]."""
    return {
        axis: torch.stack([_shift(cells, column, name, tasks) for column in some]).mean(0)
        for axis, some in columns.items()
    }


def _mean(gain_N: Tensor, clusters: Clusters, level: float = LEVEL) -> Gain:
    change = paired_difference(torch.zeros_like(gain_N), gain_N, clusters.number_N, level)
    return Gain(change.low, change.high, change.difference)


def _measured(cells: Cells, metric: str, name: str, tasks: Sequence[Pair], clusters: Clusters) -> Gain:
    return _mean(_shift(cells, Column(metric, "picture"), name, tasks), clusters)


def _changed(cells: Cells, name: str, tasks: Sequence[Pair]) -> float:
    def mean(metric: str, arm: str) -> float:
        means = pair_means(cells.get(Column(metric, "picture"), {}).get(arm, {}))
        values = [means[pair] for pair in tasks if pair in means]
        return sum(values) / len(values) if values else math.nan

    apart = mean("diversity", BASE)
    return mean("from_base", name) / apart if apart else math.nan


def _leak(cells: Cells, columns: Mapping[str, list[Column]], name: str, tasks: Sequence[Pair]) -> Gain:
    """How far pictures of prompts without the subject moved towards it: 0 is the base's, 1 as near as its tasks' are.

    By the first identity metric that scores such pictures, over prompts. NaN where none does, or the base's are no
    farther from the subject than its tasks' are.
    """
    for column in [*columns.get("identity", []), *(column for column in cells if column.axis == "identity")]:
        base, own = (pair_means(cells[column].get(arm, {})) for arm in (BASE, name))
        plain = [pair for pair in own if pair.prompt_kind == PLAIN and pair in base]
        asked = [base[pair] for pair in tasks if pair in base]
        if len(plain) < 2 or not asked:
            continue
        way = fmean(asked) - fmean(base[pair] for pair in plain)
        moved_N = torch.tensor([own[pair] - base[pair] for pair in plain], dtype=torch.float64) / way
        return _mean(moved_N, Clusters(torch.arange(len(plain)), "prompts")) if way > 0 else NOWHERE
    return NOWHERE


def _faults(
    gains: Mapping[str, Gain], measured: Mapping[str, Gain], changed: float, leak: Gain, missing: str
) -> list[Fault]:
    """What is wrong, most serious first."""
    faults = [Fault("incomplete", missing)] if missing else []
    copied, diverse = measured["copy_paste"], measured["diversity"]
    if copied.above() and copied.value > FAR and diverse.below() and diverse.value < -FAR:
        words = f"copy-paste {words_of(copied)}, diversity over seeds {words_of(diverse)}"
        faults.append(Fault("memorised", f"repeats its pictures: {words}"))
    for axis, kind in (("prompt", "prompt lost"), ("identity", "subject lost")):
        if axis in gains and gains[axis].below() and gains[axis].value < -LOST:
            faults.append(Fault(kind, f"{axis} {words_of(gains[axis])}"))  # pyright: ignore[reportArgumentType]
    if leak.above() and leak.value > LEAKED:
        bounds = f"[{leak.low:.0%}, {leak.high:.0%}]"
        words = f"pictures of prompts without the subject moved {leak.value:.0%} of the way to it {bounds}"
        faults.append(Fault("leaked", words))
    if changed < UNCHANGED and all(abs(gain.value) < LOST for gain in gains.values()):
        words = f"its pictures differ from the base's by {changed:.0%} of what another seed changes"
        faults.append(Fault("undertrained", f"{words}, and no axis moved by {LOST} SD"))
    return faults


def words_of(gain: Gain) -> str:
    """With a true minus sign, as in tables."""
    return f"{gain.value:+.2f} SD [{gain.low:+.2f}, {gain.high:+.2f}]".replace("-", "\N{MINUS SIGN}")


def _ordered(value: float) -> float:
    return -math.inf if math.isnan(value) else value
