"""Figure 1: identity against prompt following, each method where its held-out judges put it."""

from __future__ import annotations

import math
from pathlib import Path

from cgrpo.evaluation.show.plots import IDENTITY, MUTED, PROMPT, THIRD, Spot, canvas, draw_plane, save
from cgrpo.reproduce.exhibits.made import Exhibit, Made, Shown, told

ROWS = {"SFT": MUTED, "RPO": MUTED, "naive GRPO 1:1": PROMPT, "naive GRPO 1:1.5": IDENTITY, "Customized-GRPO": THIRD}


def draw(made: Made, path: Path) -> Shown:
    board = made.board("table2", list(ROWS), made.seeds)
    judges = list(board.judges.values())
    found = [(line, [line.change[judge] for judge in judges]) for line in board.lines if line.change]
    (result, *_) = (result for line, _ in found for result in made.finished("table2", line.row.name))
    scored = ([score for score in result["metrics"][judge]["base"] if score is not None] for judge in judges)
    base = [sum(arm) / len(arm) if arm else math.nan for arm in scored]
    figure, axes = canvas(f"Held-out judges ({made.world}, {told(made.seeds)})", (6.4, 4.4))
    spots = [Spot((base[0], base[1]), MUTED, "s", 7, note="base")]
    for line, changes in found:
        colour, point = ROWS[line.row.name], tuple(b + change.mean for b, change in zip(base, changes, strict=True))
        note = line.row.name + (f" ({line.lacking} seeds)" if line.lacking else "")
        spots.append(Spot((point[0], point[1]), colour, size=8, note=note))
        for place, (start, change) in enumerate(zip(base, changes, strict=True)):
            ends = [start + change.low, start + change.high]
            xs, ys = (ends, [point[1]] * 2) if place == 0 else ([point[0]] * 2, ends)
            axes.plot(xs, ys, color=colour, alpha=0.45, linewidth=1.4)
    draw_plane(axes, spots, judges[0], judges[1])
    save(figure, path.with_suffix(".png"))
    return Shown(pictures=[path.with_suffix(".png")])


EXHIBIT = Exhibit("Identity against prompt following", "Figure 1", draw, {"table2": list(ROWS)})
