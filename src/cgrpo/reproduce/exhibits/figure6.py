"""Figure 6: strength of the synergy (a), and the schedule of weights in the plane of both judges (b)."""

from __future__ import annotations

from pathlib import Path

from cgrpo.evaluation.show.plots import INK, MUTED, PROMPT, THIRD, Spot, axis_colour, draw_plane, legend, panels, save
from cgrpo.reproduce.exhibits.made import Exhibit, Made, Shown, told

ALPHAS = ("0.0", "0.2", "0.5", "0.8", "1.0")
STANDARD = {f"alpha {alpha}, standard": float(alpha) for alpha in ALPHAS}
INVERTED = {"alpha 0.5, inverted": PROMPT}
NAIVE = "naive GRPO 1:1"
ROWS = {"table5": [*STANDARD, *INVERTED], "table2": [NAIVE]}


def draw(made: Made, path: Path) -> Shown:
    seeds = made.shared(ROWS)
    board = made.board("table5", ROWS["table5"], seeds)
    lines = {line.row.name: line for line in board.lines if line.change}
    figure, (left, right) = panels([f"Strength of the synergy ({made.world}, {told(seeds)})", "Schedule"], (9.6, 3.8))
    for axis, judge in board.judges.items():
        found = [(alpha, lines[name].change[judge]) for name, alpha in STANDARD.items() if name in lines]
        alphas, changes = [alpha for alpha, _ in found], [change for _, change in found]
        colour = axis_colour(axis)
        left.plot(alphas, [change.mean for change in changes], color=colour, marker="o", markersize=4, label=judge)
        low, high = [change.low for change in changes], [change.high for change in changes]
        left.fill_between(alphas, low, high, color=colour, alpha=0.13, linewidth=0)
    left.axhline(0, color=INK, linewidth=0.8)
    left.set_xlabel("alpha")
    left.set_ylabel("change from the base")
    legend(left)
    shown = {"alpha 0.5, standard": ("TDW", THIRD), "alpha 0.5, inverted": ("inverted TDW", PROMPT)}
    spots = [Spot((0.0, 0.0), MUTED, "s", note="base")]
    naive = made.board("table2", [NAIVE], seeds).lines[0] if made.finished("table2", NAIVE) else None
    for line, note, colour in (
        *((lines.get(name), *words) for name, words in shown.items()),
        (naive, "naive 1:1", INK),
    ):
        if line is not None:
            across, up = (line.change[judge].mean for judge in board.judges.values())
            spots.append(Spot((across, up), colour, size=8, note=note))
    draw_plane(right, spots, "identity judge, change", "prompt judge, change", margin=0.25)
    save(figure, path.with_suffix(".png"))
    return Shown(pictures=[path.with_suffix(".png")])


EXHIBIT = Exhibit("Synergy coefficient and schedule", "Figure 6", draw, ROWS)
