"""Plots: colours, axes and inline SVG; curves over iterations; the plane of identity against prompt following.

In an SVG text stays text and colours are the page's own, so that light and dark both read well.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox, ScaledTranslation

from cgrpo.files import to_float

# Drawn with these and then replaced by the page's CSS variables of the same names. The three series are
# Okabe and Ito's blue, vermilion and green: told apart with any colour vision.
PAPER, INK, MUTED, RULE = "#fdfdfc", "#1b1e22", "#5d646d", "#d9dde2"
IDENTITY, PROMPT, THIRD = "#0072b2", "#d55e00", "#009e73"
# What is no axis has none of an axis's colours: methods, kinds of prompts. The baseline is ink.
SERIES = (INK, THIRD, "#cc79a7", "#b8860b", "#8a6fd1", "#6b7f2a")
VARIABLES = {
    PAPER: "paper",
    INK: "ink",
    MUTED: "muted",
    RULE: "rule",
    IDENTITY: "identity",
    PROMPT: "prompt",
    THIRD: "third",
}


def axis_colour(axis: str) -> str:
    """One colour per axis throughout the pages; a third for whatever is neither."""
    return {"identity": IDENTITY, "prompt": PROMPT}.get(axis, THIRD)


def canvas(title: str, size: tuple[float, float] = (4.6, 2.8)) -> tuple[Figure, Axes]:
    """An empty figure of ``size`` inches; ``Figure`` itself, because pyplot keeps every figure alive."""
    figure, (axes,) = panels([title], size)
    return figure, axes


def panels(titles: Sequence[str], size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """Empty plots side by side, in a figure of ``size`` inches."""
    figure = Figure(figsize=size, layout="constrained")
    plots = [figure.add_subplot(1, len(titles), place + 1) for place in range(len(titles))]
    for axes, title in zip(plots, titles, strict=True):
        axes.set_title(title, loc="left", color=INK, fontsize=11, pad=8, parse_math=False)
        dress(axes)
        axes.grid(axis="y", color=RULE, linewidth=0.8)
    return figure, plots


def dress(axes: Axes) -> None:
    """Quiet axes: a line below, no other, and numbers in grey."""
    axes.set_facecolor("none")
    axes.set_axisbelow(True)
    axes.tick_params(which="both", colors=MUTED, labelsize=9, length=0)
    axes.tick_params(which="minor", labelleft=False)
    axes.xaxis.label.set_color(MUTED)
    axes.yaxis.label.set_color(MUTED)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(RULE)


def name_iterations(axes: Axes) -> None:
    axes.set_xlabel("iteration")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def legend(axes: Axes, title: str | None = None) -> None:
    """Below the axes, where it covers nothing."""
    handles, labels = axes.get_legend_handles_labels()
    across = max(1, int(axes.get_window_extent().width / (5.5 * max(map(len, labels), default=1) + 40)))
    down = ScaledTranslation(0, -(34 if axes.get_xlabel() else 20) / 72, axes.figure.dpi_scale_trans)
    shown = axes.legend(
        handles,
        labels,
        title=title,
        title_fontsize=9,
        fontsize=9,
        labelcolor=MUTED,
        loc="upper left",
        bbox_to_anchor=(0, 0),
        bbox_transform=axes.transAxes + down,
        borderaxespad=0,
        ncols=min(across, len(labels) or 1),
        frameon=False,
        alignment="left",
    )
    shown.get_title().set_color(MUTED)


def save(figure: Figure, path: Path) -> None:
    """A PNG on paper. Raises OSError."""
    figure.savefig(path, dpi=160, facecolor=PAPER)


def svg(figure: Figure, name: str, label: str) -> str:
    """The figure as an ``<svg>`` element: without XML's preamble and name spaces, which HTML does not need."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r" font-family: [^;\"]*;", "", svg)  # the page's own font
    # Plots of one page must not share ids; those that nothing refers to are noise.
    used = set(re.findall(r"#([\w-]+)", svg))
    svg = re.sub(r' id="([^"]+)"', lambda match: match[0] if match[1] in used else "", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    svg = re.sub(r'<svg[^>]*?viewBox="([^"]+)"[^>]*>', r'<svg viewBox="\1" role="img">', svg, count=1)
    text = label.replace("&", "&amp;").replace("<", "&lt;")
    return svg.replace('role="img">', f'role="img"><title>{text}</title>', 1)


# -- over iterations -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Level:
    """A dashed horizontal line to compare with."""

    value: float
    text: str


def curve(
    rows: Sequence[Mapping[str, Any]],
    key: str,
    title: str,
    colour: str = THIRD,
    *,
    spread: str | None = None,
    level: Level | None = None,
    scale: Literal["linear", "log"] = "linear",
) -> str:
    """``rows[...][key]`` over iterations: a thin line as measured, a bold one of its moving mean.

    rows: lines of metrics.jsonl. spread: key of a standard deviation, drawn as a light band around the moving mean.
    Returns SVG for use inside HTML, or "" when no row has a finite value.
    """
    points = [(row["iteration"], to_float(row.get(key)), to_float(row.get(spread or ""))) for row in rows]
    points = [point for point in points if math.isfinite(point[1]) and (scale == "linear" or point[1] > 0)]
    if not points:
        return ""
    iterations, values, spreads = (list(column) for column in zip(*points, strict=True))
    smooth, band = moving_mean(values), moving_mean(spreads)
    figure, axes = canvas(title)
    axes.set_yscale(scale)
    if any(map(math.isfinite, band)):
        low, high = ([mean + sign * std for mean, std in zip(smooth, band, strict=True)] for sign in (-1, 1))
        axes.fill_between(iterations, low, high, color=colour, alpha=0.13, linewidth=0)
    axes.plot(iterations, values, color=colour, alpha=0.45, linewidth=0.9, marker="o" if len(values) == 1 else None)
    axes.plot(iterations, smooth, color=colour, linewidth=2.2)
    if level:
        axes.axhline(level.value, color=MUTED, linewidth=1.1, dashes=(5, 3))
        # Named above the plot, where no curve runs through the words.
        axes.set_title(f"- - {level.value:g}: {level.text}", loc="right", color=MUTED, fontsize=9, pad=8)
    name_iterations(axes)
    label = f"{title}: {len(values)} iterations, moving mean from {smooth[0]:.3g} to {smooth[-1]:.3g}"
    return svg(figure, key, label)


def moving_mean(values: Sequence[float]) -> list[float]:
    """Mean over a centred window of about a twelfth of the run; shorter at both ends, blind to NaN."""
    half = len(values) // 24
    means = []
    for n in range(len(values)):
        near = [value for value in values[max(0, n - half) : n + half + 1] if math.isfinite(value)]
        means.append(sum(near) / len(near) if near else math.nan)
    return means


# -- identity to the right, prompt following upwards -----------------------------------------------

Point = tuple[float, float]  # identity, prompt
# Where a note may stand, in points from its marker: right or left of it, above or below, near or farther.
PLACES = [(side, up) for up in (5, -12, 17, -24) for side in (7, -7)]


@dataclass(frozen=True)
class Spot:
    """A marker; ``name`` is for the legend, ``note`` is written alongside it."""

    point: Point
    colour: str
    marker: str = "o"
    size: float = 5
    name: str = ""
    note: str = ""


def draw_plane(axes: Axes, spots: Sequence[Spot], across: str, up: str, margin: float = 0.15) -> None:
    """Draw the spots and the names of the axes, with ``margin`` of the span around them."""
    dress(axes)
    axes.grid(axis="both", color=RULE, linewidth=0.8)
    for spot in spots:
        axes.plot(*spot.point, spot.marker, color=spot.colour, markersize=spot.size, label=spot.name or "_")
    axes.margins(margin)
    axes.autoscale_view()
    _write_notes(axes, spots)
    axes.set_xlabel(across, color=MUTED, parse_math=False)
    axes.set_ylabel(up, color=MUTED, parse_math=False)


def write_beside(axes: Axes, words: str, point: Point, colour: str = MUTED, size: float = 8.5) -> Annotation:
    return axes.annotate(
        words, point, (7, 5), textcoords="offset points", fontsize=size, color=colour, clip_on=True, parse_math=False
    )


def _write_notes(axes: Axes, spots: Sequence[Spot]) -> None:
    """Each alongside its marker where it covers no other note or marker and is not cut off, or covers fewest."""
    within = axes.get_window_extent()
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in (axes.transData.transform(spot.point) for spot in spots)]
    for spot in (spot for spot in spots if spot.note):
        note = write_beside(axes, spot.note, spot.point, spot.colour)
        tried = []
        for across, up in PLACES:
            note.set_position((across, up))
            note.set_horizontalalignment("left" if across > 0 else "right")
            box = note.get_window_extent()
            cut_off = box.x0 < within.x0 or box.x1 > within.x1 or box.y0 < within.y0 or box.y1 > within.y1
            tried.append((box.count_overlaps(taken) + len(taken) * cut_off, across, up))
            if not tried[-1][0]:
                break
        _, across, up = min(tried, key=lambda one: one[0])
        note.set_position((across, up))
        note.set_horizontalalignment("left" if across > 0 else "right")
        taken.append(note.get_window_extent())


def draw_move(axes: Axes, start: Point, end: Point, colour: str, bounds: Sequence[Sequence[float]]) -> None:
    """Draw an arrow, with a whisker per axis through its head: ``bounds`` are where the end may lie, low and high."""
    for place, (low, high) in enumerate(bounds):
        ends = [(value, end[1]) if place == 0 else (end[0], value) for value in (low, high)]
        axes.plot(*zip(*ends, strict=True), color=colour, alpha=0.5, linewidth=1.4)
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 2, "shrinkB": 0})
    axes.update_datalim([start, end])
    axes.autoscale_view()


def draw_front(axes: Axes, front: Sequence[Point], origin: Point) -> None:
    """Fill the area that the front, best identity first, dominates above ``origin``."""
    above = [point for point in front if point[0] > origin[0] and point[1] > origin[1]]
    if not above:
        return
    # From the best identity to the best prompt: each step first up, then left.
    xs, ys = [above[0][0]], [origin[1]]
    for n, (x, y) in enumerate(above):
        after = above[n + 1][0] if n + 1 < len(above) else origin[0]
        xs += [x, after]
        ys += [y, y]
    axes.fill([*xs, origin[0]], [*ys, origin[1]], color=THIRD, alpha=0.1, linewidth=0)
    axes.plot(xs, ys, color=THIRD, linewidth=1.2)
