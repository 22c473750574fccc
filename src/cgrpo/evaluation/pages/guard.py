"""The guard's section of the report: its checks as plots, a table and sentences."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from markupsafe import Markup

from cgrpo.evaluation.guard.rules import FAR, Row, best_in_words, best_row, gains, shift, warnings
from cgrpo.evaluation.show import plots
from cgrpo.evaluation.statistics import to_float


def section(checks: Sequence[Row]) -> dict[str, Any]:
    """What the template needs, empty where nothing was checked.

    {kept: sentence, warnings: [(iterations, sentence)], plots: [SVG], best, last: rows, names: metrics of the last}
    """
    if not checks:
        return {}
    last = checks[-1]
    names = list(last["metrics"])
    shown = [_axis(checks, axis) for axis in ("identity", "prompt")] + [path(checks), _pictures(checks)]
    return {
        "kept": best_in_words(checks),
        "warnings": said(checks),
        "plots": [Markup(svg) for svg in shown if svg],
        "best": best_row(checks),
        "last": last,
        "names": names,
    }


def said(checks: Sequence[Row]) -> list[tuple[str, str]]:
    """Each warning once: at which checks it was given, and its words at the last of them."""
    given: dict[tuple[str, ...], tuple[list[int], str]] = {}
    for row in checks:
        for warn in warnings(row["metrics"]):
            iterations, _ = given.get(warn.kind, ([], ""))
            given[warn.kind] = ([*iterations, row["iteration"]], warn.text)
    return [(", ".join(map(str, iterations)), text) for iterations, text in given.values()]


# -- plots -----------------------------------------------------------------------------------------


def _axis(checks: Sequence[Row], axis: str) -> str:
    """Rewards and judges of an axis over the checks: where they part, the reward is being hacked."""
    return _shifts(
        checks,
        f"{axis}: rewards and judges",
        f"guard-{axis}",
        lambda metric: metric["axis"] == axis and metric["role"] in ("reward", "judge"),
        first=plots.axis_colour(axis),
    )


def _pictures(checks: Sequence[Row]) -> str:
    """The guards over the checks, between the lines that they are not to cross."""
    return _shifts(checks, "the pictures themselves", "guard-pictures", lambda m: m["role"] == "guard", mark=FAR)


def _shifts(
    checks: Sequence[Row],
    title: str,
    key: str,
    wanted: Callable[[Row], bool],
    *,
    first: str = plots.INK,
    mark: float = 0,
) -> str:
    """Differences from the base in units of its spread, with the bands of their intervals; "" where there are none."""
    names = [name for name, metric in checks[-1]["metrics"].items() if wanted(metric)]
    lines = {name: line for name in names if len(line := _line(checks, name)[0]) > 1}
    if not lines:
        return ""
    figure, axes = plots.canvas(title, (4.6, 3.1))
    axes.axhline(0, color=plots.MUTED, linewidth=1)
    for sign in (-1, 1) if mark else ():
        axes.axhline(sign * mark, color=plots.MUTED, linewidth=1.1, dashes=(5, 3))
    others = [c for c in (plots.THIRD, plots.PROMPT, plots.IDENTITY, plots.MUTED) if c != first]
    colours = iter([first, *others] * len(lines))
    for name in lines:
        reward = checks[-1]["metrics"][name]["role"] == "reward"
        iterations, middle, low, high = _line(checks, name)
        # A reward, which training pushes, is dashed beside the judges, which nothing pushes.
        colour, style = (plots.INK, "--") if reward else (next(colours), "-")
        axes.fill_between(iterations, low, high, color=colour, alpha=0.1, linewidth=0)
        marker = {"marker": "o", "markersize": 3} if len(iterations) < 30 else {}
        axes.plot(iterations, middle, style, color=colour, linewidth=1.8, label=name, **marker)
    plots.name_iterations(axes)
    axes.set_ylabel("shift in spreads of the base")
    plots.legend(axes)
    ends = "; ".join(f"{name} {_line(checks, name)[1][-1]:+.2f}" for name in lines)
    return plots.svg(figure, key, f"{title} at the last check, in the base's spreads: {ends}")


def _line(checks: Sequence[Row], name: str) -> tuple[list[int], list[float], list[float], list[float]]:
    """Iterations, shift, and the interval's bounds, from the base's 0 on; checks without a number are left out."""
    points = [(0, 0.0, 0.0, 0.0)]
    for row in checks:
        metric = row["metrics"].get(name)
        if metric is None or not math.isfinite(shift(metric)) or not to_float(metric["spread"]):
            continue
        low, high = (to_float(metric[bound]) / to_float(metric["spread"]) for bound in ("low", "high"))
        points.append((row["iteration"], shift(metric), low, high))
    iterations, middle, low, high = (list(column) for column in zip(*points, strict=True))
    return iterations, middle, low, high


def path(checks: Sequence[Row]) -> str:
    """The checks' gains in the plane identity times prompt, from the base on; "" where there are not both."""
    points = [(row["iteration"], gains(row["metrics"])) for row in checks]
    points = [(at, (gain["identity"], gain["prompt"])) for at, gain in points if len(gain) == 2]
    points = [(at, point) for at, point in points if all(map(math.isfinite, point))]
    if not points:
        return ""
    figure, axes = plots.canvas("Judges at each check, base at 0", (4.6, 3.7))
    axes.axhline(0, color=plots.MUTED, linewidth=1)
    axes.axvline(0, color=plots.MUTED, linewidth=1)
    across, up = zip((0.0, 0.0), *(point for _, point in points), strict=True)
    axes.plot(across, up, color=plots.MUTED, linewidth=1, alpha=0.6)
    axes.plot(across[:1], up[:1], "s", color=plots.MUTED, markersize=6, label="base")
    axes.plot(across[1:], up[1:], "o", color=plots.INK, markersize=4, label="checks")
    best = best_row(checks)
    marked = {at: point for at, point in points if at == points[-1][0] or (best and at == best["iteration"])}
    if best and best["iteration"] in marked:
        axes.plot(*marked[best["iteration"]], "o", color=plots.THIRD, markersize=9, label="best, kept")
    for at, point in marked.items():
        axes.annotate(str(at), point, (6, 5), textcoords="offset points", color=plots.INK, fontsize=9)
    axes.margins(0.15)
    axes.set_xlabel("gain by the identity judges")
    axes.set_ylabel("gain by the prompt judges")
    plots.legend(axes)
    steps = "; ".join(f"iteration {at}: {x:+.2f}, {y:+.2f}" for at, (x, y) in _few(points))
    return plots.svg(figure, "guard-path", f"Gains of identity and prompt judges in the base's spreads. {steps}")


def _few(points: Sequence[Any], most: int = 12) -> Iterable[Any]:
    """Evenly picked, the last among them."""
    step = -(-len(points) // most)
    return points[::-1][::step][::-1]
