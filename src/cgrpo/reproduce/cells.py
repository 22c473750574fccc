"""Numbers of a table: each row's change from the base, and whether the paper's orders hold here."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal

import torch
from torch import Tensor

from cgrpo import __version__
from cgrpo.evaluation.statistics.paired import TwoLevel, two_level
from cgrpo.files import to_float
from cgrpo.reproduce.definition import AXES, FEWEST, LEVEL, Claim, Table, TableRow
from cgrpo.reproduce.results import BOTH_RIGHT, COPIES, Results
from cgrpo.reproduce.runs import Job
from cgrpo.statistics import holm

Verdict = Literal["holds", "does not hold", "level", "unclear", "too few seeds", "not run"]
SURE = 0.05  # p-value, adjusted for the number of a table's claims


@dataclass(frozen=True)
class RowResult:
    """A row of the table, as its runs came out.

    change      by metric: mean over seeds and subjects, against the base; empty where nothing was trained
    seconds     of training, the seeds' median: one may have shared its machine
    pictures    generated while training, of one seed
    drawn       pictures for each that is shown: of best of n, n
    lacking     why there are fewer seeds than asked for, or none; "" where all are there
    failed      whether one was tried in vain
    older       whether any of it was made by another version of the package
    """

    row: TableRow
    change: dict[str, TwoLevel]
    seconds: float | None
    pictures: int | None
    lacking: str
    older: bool
    devices: tuple[str, ...] = ()
    drawn: int = 1
    failed: bool = False

    @property
    def untrained(self) -> bool:
        """Nothing to show yet but what the paper has, and nothing that went wrong."""
        return bool(self.lacking) and not self.change and not self.failed


@dataclass(frozen=True)
class JudgedClaim:
    """A claim of the paper's, and what the runs here say: ``row`` - ``against`` on its axis' judge.

    p   of no difference, adjusted for all claims of the table that have enough seeds (Holm); NaN for the others
    """

    claim: Claim
    verdict: Verdict
    difference: TwoLevel | None
    p: float = math.nan


@dataclass(frozen=True)
class Scoreboard:
    """Everything that tables, plots and the page show of one table in one world."""

    table: Table
    world: str
    seeds: tuple[int, ...]
    lines: tuple[RowResult, ...]
    claims: tuple[JudgedClaim, ...]
    judges: dict[str, str]  # axis -> the judge's name

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "table": self.table.name,
            "world": self.world,
            "seeds": self.seeds,
            "judges": self.judges,
            "rows": [
                {
                    "name": line.row.name,
                    "paper": dict(zip(self.table.columns, line.row.paper, strict=False)),
                    "change": {name: asdict(change) for name, change in line.change.items()},
                    "seconds": line.seconds,
                    "pictures": line.pictures,
                    "drawn": line.drawn,
                    "lacking": line.lacking,
                    "older_version": line.older,
                    "devices": line.devices,
                }
                for line in self.lines
            ],
            "claims": [
                {**judged.claim.model_dump(), "verdict": judged.verdict, "p_holm": judged.p}
                | {"difference": judged.difference and asdict(judged.difference)}
                for judged in self.claims
            ],
        }


def scoreboard(
    table: Table,
    world: str,
    jobs: Mapping[str, Sequence[Job]],
    results: Results,
    failed: Mapping[str, str] | None = None,
) -> Scoreboard:
    """What the finished trainings say; rows that lack some say why. ``failed``: reasons by key."""
    by_row = {name: [result for job in row if (result := results.find(job.key))] for name, row in jobs.items()}
    finished = {name: _alike(row) for name, row in by_row.items()}
    judges = _judges(next((result for row in finished.values() for result in row), None))
    lines = tuple(_line(row, jobs.get(row.name, ()), finished.get(row.name, []), failed or {}) for row in table.rows)
    claims = judge([(claim, _gap(claim, finished, judges)) for claim in table.claims])
    seeds = tuple(sorted({job.seed for row in jobs.values() for job in row}))
    return Scoreboard(table, world, seeds, lines, claims, judges)


def _alike(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that were measured as the first was: earlier versions left out subjects without a score."""
    return [result for result in results if _measured(result) == _measured(results[0])]


def _judges(result: dict[str, Any] | None) -> dict[str, str]:
    """The metric that tells of each axis: a judge that is not trained on."""
    metrics = result["metrics"].items() if result else ()
    return {axis: name for axis in AXES for name, m in metrics if m["role"] == "judge" and m["axis"] == axis}


def _line(
    row: TableRow, jobs: Sequence[Job], finished: Sequence[dict[str, Any]], failed: Mapping[str, str]
) -> RowResult:
    reasons = [failed[job.key] for job in jobs if job.key in failed]
    lacking = ""
    if len(finished) < len(jobs):
        lacking = reasons[0] if reasons else f"{len(finished)}/{len(jobs)}"
    if not finished:
        return RowResult(row, {}, None, None, lacking, False, failed=bool(reasons))
    change = {name: two_level(_scored(_gaps(finished, name))) for name in finished[0]["metrics"]}
    seconds = median(result["seconds"] for result in finished)
    older = any(result["version"] != __version__ for result in finished)
    devices = tuple(dict.fromkeys(result["device"] for result in finished))
    return RowResult(
        row, change, seconds, _pictures(finished[0]), lacking, older, devices, row.best_of or 1, bool(reasons)
    )


def _gaps(finished: Sequence[dict[str, Any]], metric: str) -> Tensor:
    """[seeds, subjects]: trained less base, NaN where a subject has no score."""
    trained, base = (_arm(finished, metric, arm) for arm in ("trained", "base"))
    return trained - base


def _arm(finished: Sequence[dict[str, Any]], metric: str, arm: str) -> Tensor:
    scores = [[to_float(score) for score in result["metrics"][metric][arm]] for result in finished]
    return torch.tensor(scores, dtype=torch.float64)


def _scored(gap_SJ: Tensor) -> Tensor:
    """The subjects that have a score in every seed."""
    return gap_SJ[:, ~gap_SJ.isnan().any(0)]


def _measured(result: dict[str, Any]) -> dict[str, int]:
    """The metrics, each with its number of subjects."""
    return {name: len(metric["base"]) for name, metric in result["metrics"].items()}


def _pictures(result: dict[str, Any]) -> int | None:
    if result["config"]["method"] == "preference":
        pairs = result["config"]["preference"]
        return None if pairs["pairs"] else pairs["tasks"] * pairs["candidates"]
    settings = result["config"]["training"]
    group = settings.get("group_size")
    return group and result["iterations"] * settings["prompts_per_iteration"] * group


def _gap(claim: Claim, finished: Mapping[str, Sequence[dict[str, Any]]], judges: Mapping[str, str]) -> TwoLevel | None:
    """Seeds that both rows have are paired; the base itself has no seeds and counts as no change."""
    metric = {**judges, COPIES: COPIES, BOTH_RIGHT: BOTH_RIGHT}.get(claim.axis)  # a metric of its own name
    sides = {name: {r["seed"]: r for r in finished[name]} for name in (claim.row, claim.against) if name in finished}
    seeds = sorted(set.intersection(*(set(side) for side in sides.values()))) if sides else []
    alike = {_measured(side[seed]).get(metric or "") for side in sides.values() for seed in seeds}
    if metric is None or not seeds or len(alike) > 1 or alike == {None}:
        return None
    gaps = {name: _gaps([side[seed] for seed in seeds], metric) for name, side in sides.items()}
    nothing = torch.zeros_like(next(iter(gaps.values())))
    return two_level(_scored(gaps.get(claim.row, nothing) - gaps.get(claim.against, nothing)))


def judge(gaps: Sequence[tuple[Claim, TwoLevel | None]]) -> tuple[JudgedClaim, ...]:
    """Verdicts on a table's claims in one world, p-values adjusted for their number by Holm."""
    enough = [gap.p if gap is not None and gap.seeds >= FEWEST else math.nan for _, gap in gaps]
    return tuple(
        JudgedClaim(claim, "not run" if gap is None else verdict_of(claim, gap, p), gap, p)
        for (claim, gap), p in zip(gaps, holm(enough), strict=True)
    )


def verdict_of(claim: Claim, gap: TwoLevel, p: float) -> Verdict:
    """What a difference says of a claim; ``p`` of no difference, adjusted.

    A direction holds, or does not, where the adjusted p-value is below SURE. Where it is not, but the whole interval
    lies within LEVEL, both rows are level. A claim of "level" holds there, and does not where the whole interval lies
    outside of LEVEL.
    """
    if gap.seeds < FEWEST:
        return "too few seeds"
    level = gap.above(-LEVEL) and gap.below(LEVEL)
    if claim.lies == "level":
        return "holds" if level else "does not hold" if gap.above(LEVEL) or gap.below(-LEVEL) else "unclear"
    if p < SURE:
        return "holds" if (gap.mean > 0) == (claim.lies == "above") else "does not hold"
    return "level" if level else "unclear"
