"""What all plots share: colours, axes, and inline SVG.

In it text stays text and colours are the page's own, so that light and dark both read well.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

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


def canvas(title: str, size: tuple[float, float] = (4.6, 2.8)) -> tuple[Figure, Axes]:
    """An empty figure of ``size`` inches; ``Figure`` itself, because pyplot keeps every figure alive."""
    figure, (axes,) = panels([title], size)
    return figure, axes


def panels(titles: Sequence[str], size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """Empty plots side by side, in a figure of ``size`` inches."""
    figure = Figure(figsize=size, layout="constrained")
    found = [figure.add_subplot(1, len(titles), place + 1) for place in range(len(titles))]
    for axes, title in zip(found, titles, strict=True):
        axes.set_title(title, loc="left", color=INK, fontsize=11, pad=8, parse_math=False)
        dress(axes)
        axes.grid(axis="y", color=RULE, linewidth=0.8)
    return figure, found


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
    made = axes.legend(title=title, title_fontsize=9, fontsize=9, labelcolor=MUTED, loc="best")
    made.get_title().set_color(MUTED)
    made.get_frame().set(facecolor=PAPER, edgecolor="none", alpha=1)


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
