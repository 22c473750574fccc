"""The plane of identity, to the right, and prompt following, upwards: better in both is up and to the right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from cgrpo.evaluation.show.plots import MUTED, RULE, THIRD, dress

Point = tuple[float, float]  # identity, prompt
# Where a note may stand, in points from its mark: right or left of it, above or below, near or farther.
PLACES = [(side, up) for up in (5, -12, 17, -24) for side in (7, -7)]


@dataclass(frozen=True)
class Spot:
    """A mark; ``name`` is for the legend, ``note`` is written beside it."""

    point: Point
    colour: str
    mark: str = "o"
    size: float = 5
    name: str = ""
    note: str = ""


def draw_plane(axes: Axes, spots: Sequence[Spot], across: str, up: str, margin: float = 0.15) -> None:
    """The spots, and what the axes are called, with ``margin`` of the span around them."""
    dress(axes)
    axes.grid(axis="both", color=RULE, linewidth=0.8)
    for spot in spots:
        axes.plot(*spot.point, spot.mark, color=spot.colour, markersize=spot.size, label=spot.name or "_")
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
    """Each beside its mark where it covers no other note and no mark and is not cut off, or where it covers fewest."""
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
    """An arrow, and through its head a whisker for each axis: ``bounds`` are where the end may lie, low and high."""
    for place, (low, high) in enumerate(bounds):
        ends = [(value, end[1]) if place == 0 else (end[0], value) for value in (low, high)]
        axes.plot(*zip(*ends, strict=True), color=colour, alpha=0.5, linewidth=1.4)
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 2, "shrinkB": 0})
    axes.update_datalim([start, end])
    axes.autoscale_view()


def draw_front(axes: Axes, front: Sequence[Point], origin: Point) -> None:
    """The area that the front, best identity first, dominates above ``origin``."""
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
