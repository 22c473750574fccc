"""What a run's report says of its metrics: verdict, cautions, and how a metric reads in a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cgrpo.evaluation.metrics import movement
from cgrpo.evaluation.show.page import Verdict
from cgrpo.evaluation.show.table import Cell, interval, number

WEIGHTED = ("identity", "prompt")  # the rewards that carry weight; any other is watched
READING = {"rose": "▲ rose", "fell": "▼ fell", "unclear": "unclear"}

Row = Mapping[str, Any]


def verdict(metrics: Mapping[str, Row], iterations: int) -> Verdict:
    """Did every weighted reward rise on held-out tasks, and do the judges' 95 % intervals say so too?"""
    rewards = {k: m for k, m in metrics.items() if m.get("role") == "reward" and k in WEIGHTED}
    judges = {k: m for k, m in metrics.items() if m.get("role") == "judge"}
    if not iterations:
        return Verdict("unknown", "Nothing was trained: the policy is the base.")
    if not rewards and not judges:
        return Verdict("unknown", "Base and trained were not compared on held-out tasks, so there is no verdict.")
    parts = [_movement("reward", rewards), _movement("judge", judges)]
    text = "On held-out tasks " + ", and ".join(filter(None, parts))
    if all(movement(m) == "rose" for m in (rewards | judges).values()):
        return Verdict("rose", text + "; every 95 % interval lies above 0.")
    return Verdict("mixed", text + ".")


def _movement(noun: str, metrics: Mapping[str, Row]) -> str:
    """ "both rewards rose (identity +0.041, prompt +0.018)", or one by one where they differ; "" for none."""
    words = {"rose": "rose", "fell": "fell", "unclear": "did not change measurably"}
    moves = {name: movement(m) for name, m in metrics.items()}
    gaps = {name: number(m.get("difference"), signed=True) for name, m in metrics.items()}
    if not metrics:
        return ""
    if len(set(moves.values())) == 1:
        subject = {1: f"the {noun}", 2: f"both {noun}s"}.get(len(metrics), f"all {len(metrics)} {noun}s")
        details = ", ".join(f"{name} {gap}" for name, gap in gaps.items())
        return f"{subject} {words[next(iter(moves.values()))]} ({details})"
    return f"of the {noun}s " + " while ".join(f"{name} {words[moves[name]]} ({gaps[name]})" for name in metrics)


def cautions(metrics: Mapping[str, Row]) -> list[str]:
    """What a glad verdict might hide."""
    return [
        f"The guard {name} rose too ({number(m.get('difference'), signed=True)}): "
        "look whether the trained pictures copy their references."
        for name, m in metrics.items()
        if m.get("role") == "guard" and movement(m) == "rose"
    ]


def warned(checks: Sequence[Row]) -> list[str]:
    """What the guard's last check says, if there was one."""
    return [f"Held-out guard, iteration {row['iteration']}: {text}." for row in checks[-1:] for text in row["warnings"]]


def name_cell(name: str, metric: Row) -> Cell:
    return Cell(name, dot=metric["axis"])


def change_cells(metric: Row) -> list[str | Cell]:
    """Difference, interval and reading. A guard that moves is neither good nor bad in itself."""
    move = movement(metric)
    tone = move if metric["role"] != "guard" else ""
    gap, bounds = number(metric["difference"], signed=True), interval(metric["low"], metric["high"])
    return [Cell(gap, tone), bounds, Cell(READING[move], tone)]
