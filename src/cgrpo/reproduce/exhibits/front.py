"""Every fill of the credit table in one plane: what trades identity for prompt following, and what lies beyond."""

from __future__ import annotations

from pathlib import Path

from cgrpo.evaluation.show.plots import IDENTITY, MUTED, PROMPT, THIRD, Spot, canvas, draw_plane, save
from cgrpo.reproduce.exhibits.made import Exhibit, Made, Shown, told

UNTRAINED = ["best of 2", "best of 4", "best of 12"]
ROWS = {
    "table2": [*UNTRAINED, "SFT", "RPO", "naive GRPO 1:1", "naive GRPO 1:1.5", "Customized-GRPO", "w/o TDW"],
    "table3": ["min", "max"],
    "table5": ["alpha 0.5, inverted"],
    "rivals": [
        "raw sum",
        "after APEX",
        "TempFlow's weights",
        "raw sum, TempFlow's weights",
        "SARS + TDW, TempFlow's weights",
    ],
}
COLOURS = dict.fromkeys([*UNTRAINED, "SFT", "RPO"], MUTED) | {"naive GRPO 1:1": PROMPT, "naive GRPO 1:1.5": PROMPT}


def draw(made: Made, path: Path) -> Shown:
    seeds = made.shared(ROWS)
    figure, axes = canvas(f"Change of the held-out judges ({made.world}, {told(seeds)})", (7.6, 5.2))
    spots, judges = [Spot((0, 0), MUTED, "s", 7, note="base")], []
    for table, rows in ROWS.items():
        board = made.board(table, rows, seeds)
        judges = list(board.judges.values())
        for line in board.lines:
            if line.change:
                identity, prompt = (line.change[judge].mean for judge in judges)
                colour = COLOURS.get(line.row.name, IDENTITY if table == "rivals" else THIRD)
                mark = "D" if line.row.name in UNTRAINED else "o"
                note = line.row.name + (f" ({line.lacking} seeds)" if line.lacking else "")
                spots.append(Spot((identity, prompt), colour, mark, 6, note=note))
    draw_plane(axes, spots, judges[0], judges[1])
    save(figure, path.with_suffix(".png"))
    return Shown(pictures=[path.with_suffix(".png")])


EXHIBIT = Exhibit("Every fill in one plane", "beyond the paper", draw, ROWS)
