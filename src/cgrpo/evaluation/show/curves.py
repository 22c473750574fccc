"""Numbers over the iterations of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cgrpo.evaluation.show.plots import MUTED, THIRD, canvas, name_iterations, svg
from cgrpo.files import to_float

Row = Mapping[str, Any]  # one line of metrics.jsonl


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


def _moving_mean(values: Sequence[float]) -> list[float]:
    """Mean over a centred window of about a twelfth of the run; shorter at both ends, blind to NaN."""
    half = len(values) // 24
    means = []
    for n in range(len(values)):
        near = [value for value in values[max(0, n - half) : n + half + 1] if math.isfinite(value)]
        means.append(sum(near) / len(near) if near else math.nan)
    return means
