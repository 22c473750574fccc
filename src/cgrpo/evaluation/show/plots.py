"""Plots of a run as inline SVG: text stays text, colours are the page's own, so light and dark both read well."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cgrpo.evaluation.statistics import to_float

Row = Mapping[str, Any]  # one line of metrics.jsonl

# Drawn with these and then replaced by the page's CSS variables of the same names. The three series are
# Okabe and Ito's blue, vermilion and green: told apart with any colour vision.
PAPER, INK, MUTED, RULE = "#fdfdfc", "#1b1e22", "#5d646d", "#d9dde2"
IDENTITY, PROMPT, THIRD = "#0072b2", "#d55e00", "#009e73"
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
    """One colour an axis throughout the report; a third for whatever is neither."""
    return {"identity": IDENTITY, "prompt": PROMPT}.get(axis, THIRD)


@dataclass(frozen=True)
class Mark:
    """A dashed horizontal line to compare with."""

    value: float
    text: str


def curve(
    rows: Sequence[Row],
    key: str,
    title: str,
    colour: str = THIRD,
    *,
    spread: str | None = None,
    mark: Mark | None = None,
    scale: Literal["linear", "log"] = "linear",
) -> str:
    """``rows[...][key]`` over iterations: a thin line as measured, a bold one of its moving mean.

    spread: key of a standard deviation, drawn as a light band around the moving mean. Returns SVG for use inside
    HTML, or "" when no row has a finite value.
    """
    points = [(row["iteration"], to_float(row.get(key)), to_float(row.get(spread or ""))) for row in rows]
    points = [point for point in points if math.isfinite(point[1]) and (scale == "linear" or point[1] > 0)]
    if not points:
        return ""
    iterations, values, spreads = (list(column) for column in zip(*points, strict=True))
    smooth, band = _moving_mean(values), _moving_mean(spreads)
    figure, axes = canvas(title)
    axes.set_yscale(scale)
    if any(map(math.isfinite, band)):
        low, high = ([mean + sign * std for mean, std in zip(smooth, band, strict=True)] for sign in (-1, 1))
        axes.fill_between(iterations, low, high, color=colour, alpha=0.13, linewidth=0)
    axes.plot(iterations, values, color=colour, alpha=0.45, linewidth=0.9, marker="o" if len(values) == 1 else None)
    axes.plot(iterations, smooth, color=colour, linewidth=2.2)
    if mark:
        axes.axhline(mark.value, color=MUTED, linewidth=1.1, dashes=(5, 3))
        # Named above the plot, where no curve runs through the words.
        axes.set_title(f"- - {mark.value:g}: {mark.text}", loc="right", color=MUTED, fontsize=9, pad=8)
    name_iterations(axes)
    label = f"{title}: {len(values)} iterations, moving mean from {smooth[0]:.3g} to {smooth[-1]:.3g}"
    return svg(figure, key, label)


def tradeoff(arms: Mapping[str, Mapping[str, Row]]) -> str:
    """Arrows from base to trained, identity's judge across and the prompt's upwards, a whisker for each 95 % interval.

    arms: summary metrics ``{metric: {role, axis, base, trained, low, high}}`` by kind of prompts. Returns SVG for use
    inside HTML, or "" unless some kind of prompts has a judge of both axes.
    """
    judged = {kind: _judges(metrics) for kind, metrics in arms.items()}
    judged = {kind: pair for kind, pair in judged.items() if pair is not None}
    if not judged:
        return ""
    figure, axes = canvas("Judges, base → trained", size=(4.6, 3.7))
    for (kind, (x, y)), colour in zip(judged.items(), (INK, THIRD, PROMPT), strict=False):
        start, end = (x["base"], y["base"]), (x["trained"], y["trained"])
        # The interval belongs to the difference; from the base it says where the trained mean may lie.
        for judge, whisker in ((x, lambda v, end=end: (v, end[1])), (y, lambda v, end=end: (end[0], v))):
            bounds = [judge["base"] + to_float(judge.get(bound)) for bound in ("low", "high")]
            if all(map(math.isfinite, bounds)):
                axes.plot(*zip(*map(whisker, bounds), strict=True), color=colour, alpha=0.5, linewidth=1.4)
        axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 2, "shrinkB": 0})
        axes.plot(*start, "o", color=colour, markersize=5, label=kind)
        axes.update_datalim([start, end])
    axes.margins(0.2)
    axes.autoscale_view()
    legend(axes, "prompts")
    axes.set_xlabel("identity judge")
    axes.set_ylabel("prompt judge")
    ends = "; ".join(
        f"{kind}: identity {x['base']:.3f} to {x['trained']:.3f}, prompt {y['base']:.3f} to {y['trained']:.3f}"
        for kind, (x, y) in judged.items()
    )
    return svg(figure, "tradeoff", f"Judges from base to trained. {ends}")


def _judges(metrics: Mapping[str, Row]) -> tuple[Row, Row] | None:
    """The first judge of identity and the first of the prompt, if both have finite means."""
    pair = []
    for axis in ("identity", "prompt"):
        rows = (row for row in metrics.values() if row.get("role") == "judge" and row.get("axis") == axis)
        row = next(rows, None)
        if row is None or not all(math.isfinite(to_float(row.get(arm))) for arm in ("base", "trained")):
            return None
        pair.append(row)
    return pair[0], pair[1]


def _moving_mean(values: Sequence[float]) -> list[float]:
    """Mean over a centred window of about a twelfth of the run; shorter at both ends, blind to NaN."""
    half = len(values) // 24
    means = []
    for n in range(len(values)):
        near = [value for value in values[max(0, n - half) : n + half + 1] if math.isfinite(value)]
        means.append(sum(near) / len(near) if near else math.nan)
    return means


def canvas(title: str, size: tuple[float, float] = (4.6, 2.8)) -> tuple[Figure, Axes]:
    """An empty figure of ``size`` inches; ``Figure`` itself, because pyplot keeps every figure alive."""
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", color=INK, fontsize=11, pad=8, parse_math=False)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.tick_params(which="both", colors=MUTED, labelsize=9, length=0)
    axes.tick_params(which="minor", labelleft=False)
    axes.xaxis.label.set_color(MUTED)
    axes.yaxis.label.set_color(MUTED)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(RULE)
    return figure, axes


def name_iterations(axes: Axes) -> None:
    axes.set_xlabel("iteration")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def legend(axes: Axes, title: str | None = None) -> None:
    made = axes.legend(title=title, title_fontsize=9, fontsize=9, labelcolor=MUTED, loc="best")
    made.get_title().set_color(MUTED)
    made.get_frame().set(facecolor=PAPER, edgecolor="none", alpha=1)


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
