"""Base against trained on held-out tasks: tables, the plane of both axes, pictures before and after."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from cgrpo.evaluation.heldout import ARMS, HeldOut, tasks_by_gain
from cgrpo.evaluation.metrics import Metric, movement
from cgrpo.evaluation.show.page import Block, Details, Heading, Plots, Section, Text
from cgrpo.evaluation.show.plots import SERIES, Spot, canvas, draw_move, draw_plane, legend, svg
from cgrpo.evaluation.show.table import Cell, Table, interval, number
from cgrpo.evaluation.show.thumbnails import Card, Gallery
from cgrpo.evaluation.statistics.paired import MEANING, Unit
from cgrpo.files import to_float
from cgrpo.rewards.base import to_pictures

CHANGE = ("Base", "Trained", "Change [95 %]")
READING = {"rose": "▲ rose", "fell": "▼ fell", "unclear": "unclear"}


def words(name: str) -> str:
    """A metric's name for readers."""
    return name.replace("_", " ")


def name_cell(name: str, metric: Metric) -> Cell:
    axis = "" if metric["axis"] in name else f", {metric['axis']}"
    return Cell(f"{words(name)} [{metric['role']}{axis}]", dot=metric["axis"])


def change_cell(metric: Metric) -> Cell:
    """Reading, difference and interval. A guard that moves is neither good nor bad in itself."""
    move = movement(metric)
    gap, bounds = number(metric["difference"], signed=True), interval(metric["low"], metric["high"])
    return Cell(f"{READING[move]} {gap} [{bounds}]", move if metric["role"] != "guard" else "")


def heldout_section(
    metrics: Mapping[str, Metric], by_prompt: Mapping[str, Mapping[str, Metric]], tasks: Mapping[str, Any]
) -> Section:
    """All tasks, the kinds of prompts apart, and where the judges moved. ``tasks``: the summary's "heldout"."""
    whole = _all_prompts(metrics, tasks)
    blocks = whole.noted()
    if by_prompt:
        kinds = _by_kind(metrics, by_prompt)
        blocks.append(Details(kinds.title, kinds.noted()))
    if plot := tradeoff({"all": metrics, **by_prompt}):
        words = "Up and to the right is better in both. Whiskers: 95 % interval of the change, per axis."
        blocks += [Heading("Identity against prompt"), Text(words, "muted"), Plots([plot])]
    return Section("heldout", whole.title, blocks)


def _all_prompts(metrics: Mapping[str, Metric], tasks: Mapping[str, Any]) -> Table:
    unit: Unit = tasks.get("over", "subjects")
    note = (
        f"Means over the tasks of {tasks.get('source', 'the held-out split')}; higher is better. The interval is "
        f"Student's, over the {unit}' mean differences: {MEANING[unit]}. Rewards were trained on; judges never were; "
        "a guard watches for a shortcut."
    )
    rows = [[name_cell(k, m), *_arms(m), change_cell(m)] for k, m in metrics.items()]
    return Table("Base against trained, held out", note, ["Metric", *CHANGE], rows, "lrrr")


def _by_kind(metrics: Mapping[str, Metric], by_prompt: Mapping[str, Mapping[str, Metric]]) -> Table:
    note = (
        "Property prompts ask for something that the subject does not have (“a red toy”), so they compete with "
        "identity."
    )
    rows = [
        [name_cell(name, table[name]), kind, *_arms(table[name]), change_cell(table[name])]
        for name in metrics
        for kind, table in by_prompt.items()
        if name in table
    ]
    return Table("By kind of prompt", note, ["Metric", "Prompts", *CHANGE], rows, "llrrr")


def _arms(metric: Metric) -> list[str]:
    return [number(metric[arm]) for arm in ARMS]


def tradeoff(arms: Mapping[str, Mapping[str, Metric]]) -> str:
    """Arrows from base to trained, identity's judge across and the prompt's upwards, a whisker for each 95 % interval.

    arms: summary metrics ``{metric: {role, axis, base, trained, low, high}}`` by kind of prompts. Returns SVG for use
    inside HTML, or "" unless some kind of prompts has a judge of both axes.
    """
    judged = {kind: _judges(metrics) for kind, metrics in arms.items()}
    judged = {kind: pair for kind, pair in judged.items() if pair is not None}
    if not judged:
        return ""
    figure, axes = canvas("Judges, base → trained", size=(4.6, 3.7))
    spots, ends = [], []
    for (kind, (x, y)), colour in zip(judged.items(), SERIES, strict=False):
        start, end = (x["base"], y["base"]), (x["trained"], y["trained"])
        # The interval belongs to the difference; from the base it says where the trained mean may lie.
        bounds = [[judge["base"] + to_float(judge.get(bound)) for bound in ("low", "high")] for judge in (x, y)]
        draw_move(axes, start, end, colour, bounds)
        spots.append(Spot(start, colour, name=kind))
        ends.append(f"{kind}: identity {start[0]:.3f} to {end[0]:.3f}, prompt {start[1]:.3f} to {end[1]:.3f}")
    draw_plane(axes, spots, "identity, by its judge", "prompt following, by its judge", margin=0.2)
    legend(axes, "prompts")
    return svg(figure, "tradeoff", f"Judges from base to trained. {'; '.join(ends)}")


def _judges(metrics: Mapping[str, Metric]) -> tuple[Metric, Metric] | None:
    """The first judge of identity and the first of the prompt, if both have finite means."""
    pair = []
    for axis in ("identity", "prompt"):
        judges = (m for m in metrics.values() if m.get("role") == "judge" and m.get("axis") == axis)
        judge = next(judges, None)
        if judge is None or not all(math.isfinite(to_float(judge.get(arm))) for arm in ARMS):
            return None
        pair.append(judge)
    return pair[0], pair[1]


def pairs_section(heldout: HeldOut, metrics: Mapping[str, Metric]) -> Section:
    """Four held-out tasks to see at once, and all that ``tasks_by_gain`` chooses folded."""
    judges = {n: m["axis"] for n, m in metrics.items() if m.get("role") == "judge" and n in heldout.scores}
    chosen = tasks_by_gain(heldout, metrics)
    largest, median, smallest = chosen.values()
    four = [*largest[:1], *median[:2], *smallest[-1:]]
    rule = (
        "Four held-out tasks, chosen by a fixed rule: the largest gain, two around the median, the smallest. Base and "
        f"trained start from the same noise.{' Numbers: the judges, base → trained.' if judges else ''}"
    )
    cards = {n: _card(heldout, judges, n) for some in chosen.values() for n in some}
    more: list[Block] = [Text("By the mean of the judges: the tasks that gained most, the middle, the last.", "muted")]
    for name, tasks in chosen.items():
        more += [Heading(name.capitalize()), Gallery([cards[n] for n in tasks])]
    blocks: list[Block] = [Gallery([cards[n] for n in four], large=True), Text(rule, "muted")]
    blocks += [Details(f"All {len(cards)} tasks that the rule shows", more)] if len(cards) > len(four) else []
    return Section("examples", "Before and after", blocks)


def _card(heldout: HeldOut, judges: Mapping[str, str], n: int) -> Card:
    (base,), (trained,) = to_pictures(heldout.base_NHWC[[n]]), to_pictures(heldout.trained_NHWC[[n]])
    changes = {
        axis: " → ".join(number(heldout.scores[name][arm][n].item(), 2) for arm in ARMS)
        for name, axis in judges.items()
    }
    shown = heldout.batch.references[n]
    names = ["reference"] if len(shown) == 1 else [f"reference {k + 1}" for k in range(len(shown))]
    pictures = {**dict(zip(names, shown, strict=True)), "base": base, "trained": trained}
    return Card(pictures, heldout.batch.prompts[n], " · ".join(f"{axis} {change}" for axis, change in changes.items()))
