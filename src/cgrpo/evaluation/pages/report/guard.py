"""The guard's section of the report: its checks as plots, a table and sentences."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from cgrpo.evaluation.guard import FAR, Check, best_check, best_in_words, gains, shift, warnings
from cgrpo.evaluation.metrics import Metric
from cgrpo.evaluation.pages.report.heldout import CHANGE, change_cell, name_cell
from cgrpo.evaluation.pages.report.heldout import words as metric_words
from cgrpo.evaluation.show import plots
from cgrpo.evaluation.show.page import Block, Plots, Section, Text
from cgrpo.evaluation.show.plots import Spot, draw_plane
from cgrpo.evaluation.show.table import Table, number, sentence
from cgrpo.evaluation.statistics.paired import MEANING, Unit
from cgrpo.files import to_float


def guard_section(checks: Sequence[Check]) -> Section:
    """The checks of a run, one at least: what is kept, warnings, plots, and the last check as a table."""
    title = "Held-out guard"
    unit: Unit = checks[-1]["unit"]
    words = (
        "While it trained, the run was checked on held-out tasks of its own, against the base from the same noise. "
        "Shifts are in standard deviations (SD) of the base's scores over tasks; bands are 95 % intervals "
        f"over the {unit}: {MEANING[unit]}. "
        "Rewards are dashed: one that rises while a judge of its axis falls is being hacked. "
        "The best check is the one whose lesser gain, of identity and prompt, is greatest."
    )
    warned = [
        Text(f"Iteration{'s' if ',' in iterations else ''} {iterations}: {text}.", "caution")
        for iterations, text in distinct_warnings(checks)
    ]
    blocks: list[Block] = [Text(words, "muted"), Text(sentence(best_in_words(checks)))]
    blocks += warned or [Text("No check gave cause for a warning.")]
    blocks.append(Plots([_axis(checks, "identity"), _axis(checks, "prompt"), path(checks), _pictures(checks)]))
    blocks.append(_last(title, words, checks))
    return Section("guard", title, blocks)


def _last(title: str, note: str, checks: Sequence[Check]) -> Table:
    """The last check, and the best one's means alongside, if any is kept; the head has their iterations."""
    last, best = checks[-1], best_check(checks)
    head = ["Metric", "Base", *([f"Best ({best['iteration']})"] if best else [])]
    head += [f"Last ({last['iteration']})", CHANGE[-1]]
    rows = []
    for name, metric in last["metrics"].items():
        kept = [number(best["metrics"].get(name, {}).get("trained"))] if best else []
        arms = [number(metric["base"]), *kept, number(metric["trained"])]
        rows.append([name_cell(name, metric), *arms, change_cell(metric)])
    return Table(title, note, head, rows, "l" + "r" * (len(head) - 1))


def distinct_warnings(checks: Sequence[Check]) -> list[tuple[str, str]]:
    """Each warning once: at which checks it was given, and its words at the last of them."""
    given: dict[tuple[str, ...], tuple[list[int], str]] = {}
    for check in checks:
        for warning in warnings(check["metrics"]):
            iterations, _ = given.get(warning.kind, ([], ""))
            given[warning.kind] = ([*iterations, check["iteration"]], warning.text)
    return [(", ".join(map(str, iterations)), text) for iterations, text in given.values()]


# -- plots -----------------------------------------------------------------------------------------


def _axis(checks: Sequence[Check], axis: str) -> str:
    """Rewards and judges of an axis over the checks. Where they part, the reward is being hacked."""
    return _shifts(
        checks,
        f"{axis}: rewards and judges",
        f"guard-{axis}",
        lambda metric: metric["axis"] == axis and metric["role"] in ("reward", "judge"),
        first=plots.axis_colour(axis),
    )


def _pictures(checks: Sequence[Check]) -> str:
    """The guards over the checks, between the lines that they are not to cross."""
    return _shifts(checks, "the pictures themselves", "guard-pictures", lambda m: m["role"] == "guard", limit=FAR)


def _shifts(
    checks: Sequence[Check],
    title: str,
    key: str,
    chosen: Callable[[Metric], bool],
    *,
    first: str = plots.INK,
    limit: float = 0,
) -> str:
    """Shifts from the base, with the bands of their intervals; "" where there are none."""
    names = [name for name, metric in checks[-1]["metrics"].items() if chosen(metric)]
    lines = {name: line for name in names if len(line := _line(checks, name)[0]) > 1}
    if not lines:
        return ""
    figure, axes = plots.canvas(title, (4.6, 3.1))
    axes.axhline(0, color=plots.MUTED, linewidth=1)
    for sign in (-1, 1) if limit else ():
        axes.axhline(sign * limit, color=plots.MUTED, linewidth=1.1, dashes=(5, 3))
    colours = iter([first, *(colour for colour in plots.SERIES[1:] if colour != first)] * len(lines))
    for name in lines:
        reward = checks[-1]["metrics"][name]["role"] == "reward"
        iterations, middle, low, high = _line(checks, name)
        # A reward, which training pushes, is dashed; the judges, which nothing pushes, are not.
        colour, style = (plots.INK, "--") if reward else (next(colours), "-")
        axes.fill_between(iterations, low, high, color=colour, alpha=0.1, linewidth=0)
        marker = {"marker": "o", "markersize": 3} if len(iterations) < 30 else {}
        axes.plot(iterations, middle, style, color=colour, linewidth=1.8, label=metric_words(name), **marker)
    plots.name_iterations(axes)
    axes.set_ylabel("shift in SD of the base")
    plots.legend(axes)
    ends = "; ".join(f"{name} {_line(checks, name)[1][-1]:+.2f}" for name in lines)
    return plots.svg(figure, key, f"{title} at the last check, in SD of the base: {ends}")


def _line(checks: Sequence[Check], name: str) -> tuple[list[int], list[float], list[float], list[float]]:
    """Iterations, shift, and the interval's bounds, from the base's 0 on; checks without a number are left out."""
    points = [(0, 0.0, 0.0, 0.0)]
    for check in checks:
        metric = check["metrics"].get(name)
        if metric is None or not math.isfinite(shift(metric)) or not to_float(metric["spread"]):
            continue
        low, high = (to_float(metric[bound]) / to_float(metric["spread"]) for bound in ("low", "high"))
        points.append((check["iteration"], shift(metric), low, high))
    iterations, middle, low, high = (list(column) for column in zip(*points, strict=True))
    return iterations, middle, low, high


def path(checks: Sequence[Check]) -> str:
    """The checks' gains in the plane identity times prompt, from the base on; "" where there are not both."""
    points = [(check["iteration"], gains(check["metrics"])) for check in checks]
    points = [(at, (gain["identity"], gain["prompt"])) for at, gain in points if len(gain) == 2]
    points = [(at, point) for at, point in points if all(map(math.isfinite, point))]
    if not points:
        return ""
    figure, axes = plots.canvas("Judges at each check, base at 0", (4.6, 3.7))
    axes.axhline(0, color=plots.MUTED, linewidth=1)
    axes.axvline(0, color=plots.MUTED, linewidth=1)
    across, up = zip((0.0, 0.0), *(point for _, point in points), strict=True)
    axes.plot(across, up, color=plots.MUTED, linewidth=1, alpha=0.6)
    best, last = best_check(checks), points[-1][0]
    spots = [Spot((0.0, 0.0), plots.MUTED, "s", 6, "base")]
    for n, (at, point) in enumerate(points):
        kept = best is not None and at == best["iteration"]
        note = str(at) if kept or at == last else ""
        spots.append(Spot(point, plots.INK, size=4, name="" if n else "checks", note=note))
        if kept:
            spots.append(Spot(point, plots.THIRD, size=9, name="best, kept"))
    draw_plane(axes, spots, "gain by the identity judges", "gain by the prompt judges")
    plots.legend(axes)
    steps = "; ".join(f"iteration {at}: {x:+.2f}, {y:+.2f}" for at, (x, y) in _few(points))
    return plots.svg(figure, "guard-path", f"Gains of identity and prompt judges in SD of the base. {steps}")


def _few(points: Sequence[Any], most: int = 12) -> Iterable[Any]:
    """Evenly picked, the last among them."""
    step = -(-len(points) // most)
    return points[::-1][::step][::-1]
