"""Plots of a comparison: methods in the plane of identity and prompt, and differences subject by subject."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cgrpo.evaluation.show.plots import (
    INK,
    MUTED,
    RULE,
    SERIES,
    Point,
    Spot,
    draw_front,
    draw_plane,
    dress,
    legend,
    write_beside,
)
from cgrpo.evaluation.statistics.comparison import Comparison
from cgrpo.evaluation.statistics.tradeoff import Tradeoff
from cgrpo.scores import AUTOENCODED, COPY, PROMPT_ONLY, REAL, RESERVED

MARKS = "osD^vP*X"
REFERENCE_MARKS = {COPY: "x", PROMPT_ONLY: "1", AUTOENCODED: "2", REAL: "*"}
ACROSS = 2  # panels in a row


def style(place: int) -> tuple[str, str]:
    """Colour and marker of the method at ``place``, the baseline at 0."""
    return SERIES[place % len(SERIES)], MARKS[place % len(MARKS)]


def pareto_figure(comparison: Comparison) -> Figure:
    """Two panels for each identity column against each prompt column: all rows, and the methods from close by."""
    panels = [(panel, close) for panel in comparison.tradeoffs for close in (False, True)]
    across = ACROSS if panels else 1
    down = math.ceil(max(len(panels), 1) / across)
    figure = Figure(figsize=(4.6 * across, 3.9 * down), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False).ravel()
    for axes, (panel, close) in zip(grid, panels, strict=False):
        _tradeoff(axes, panel, comparison.methods, close)
    if not panels:
        grid[0].set_axis_off()
        grid[0].text(0.5, 0.5, "no metric of both axes was scored", ha="center", color=MUTED)
    return figure


def _tradeoff(axes: Axes, panel: Tradeoff, methods: Sequence[str], close: bool) -> None:
    title = "the methods from close by" if close else "all rows"
    axes.set_title(title, loc="left", color=INK, fontsize=10)
    draw_front(axes, [panel.points[name] for name in panel.front], panel.origin)
    spots = [_spot(name, point, methods, close) for name, point in panel.points.items()]
    draw_plane(axes, spots, f"identity, by {panel.identity}", f"prompt following, by {panel.prompt}", margin=0.14)
    if close:
        _close_by(axes, [panel.points[name] for name in methods if name in panel.points])
        return
    axes.plot(*panel.origin, "+", color=MUTED, markersize=9)
    write_beside(axes, "reference point", panel.origin, size=7.5)
    if math.isfinite(panel.ceiling):
        axes.axvline(panel.ceiling, color=MUTED, linewidth=1, dashes=(5, 3))
        axes.annotate(
            "real photographs ",
            (panel.ceiling, 0.02),
            xycoords=("data", "axes fraction"),
            rotation=90,
            ha="right",
            va="bottom",
            fontsize=7.5,
            color=MUTED,
        )
    legend(axes)


def _spot(name: str, point: Point, methods: Sequence[str], close: bool) -> Spot:
    """From close by the methods are named where they stand."""
    if name in RESERVED:
        return Spot(point, MUTED, REFERENCE_MARKS[name], 7, name)
    colour, marker = style(methods.index(name))
    return Spot(point, colour, marker, 7, name, note=name if close else "")


def _close_by(axes: Axes, points: Sequence[Point]) -> None:
    """Limits around the methods, with room to the right for the names."""
    for values, setter, right in zip(zip(*points, strict=True), (axes.set_xlim, axes.set_ylim), (2, 1), strict=True):
        low, high = min(values), max(values)
        room = 0.3 * (high - low) or 0.02 * max(1.0, abs(high))
        setter(low - room, high + right * room)


def subjects_figure(comparison: Comparison) -> Figure:
    """A panel per column, a line per subject, a dot per method with its interval over prompts; one order throughout."""
    columns, others = comparison.columns, comparison.methods[1:]
    first = {d.subject: d.difference for d in reversed(comparison.subjects) if d.column == columns[0]}
    order = sorted(dict.fromkeys(d.subject for d in comparison.subjects), key=lambda name: first.get(name, math.inf))
    step = 0.21 + 0.05 * max(len(others) - 1, 0)
    figure = Figure(figsize=(2.2 + 2.6 * len(columns), 1.2 + step * max(len(order), 6)), layout="constrained")
    grid = figure.subplots(1, len(columns), squeeze=False, sharey=True).ravel()
    for axes, column in zip(grid, columns, strict=True):
        dress(axes)
        axes.grid(axis="y", color=RULE, linewidth=0.6)
        axes.axvline(0, color=MUTED, linewidth=1)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_title(column, loc="left", color=INK, fontsize=10, parse_math=False)
        for place, method in enumerate(others):
            shown = [d for d in comparison.subjects if d.column == column and d.method == method]
            shift = 0.6 * ((place + 0.5) / len(others) - 0.5)
            ys = [order.index(d.subject) + shift for d in shown]
            colour, marker = style(place + 1)
            axes.hlines(ys, [d.low for d in shown], [d.high for d in shown], color=colour, alpha=0.5, linewidth=1.2)
            axes.plot([d.difference for d in shown], ys, marker, color=colour, markersize=4, label=method)
    kinds = {d.subject: d.kind for d in comparison.subjects}
    names = [f"{name} ({kinds[name]})" if kinds[name] == "live" else name for name in order]
    grid[0].set_yticks(range(len(order)), names)
    grid[0].set_ylim(-0.7, len(order) - 0.3)
    figure.supxlabel(f"difference from {comparison.baseline}", fontsize=9, color=MUTED, parse_math=False)
    if len(others) > 0 and order:
        handles, labels = grid[0].get_legend_handles_labels()
        legend = figure.legend(
            handles, labels, loc="outside upper left", ncols=4, fontsize=8.5, frameon=False, labelcolor=MUTED
        )
        legend.set_in_layout(True)
    return figure
