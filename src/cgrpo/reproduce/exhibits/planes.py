"""Exhibits in the plane of the held-out judges: Figures 1 and 6, and every credit function at once."""

import math
from pathlib import Path

from cgrpo.evaluation.show.plots import (
    IDENTITY,
    INK,
    MUTED,
    PROMPT,
    THIRD,
    Spot,
    axis_colour,
    canvas,
    draw_plane,
    legend,
    panels,
)
from cgrpo.reproduce.cells import RowResult
from cgrpo.reproduce.exhibits.base import Drawing, Exhibit, TableRuns, saved, seeds_in_words

FIGURE1_ROWS = {
    "SFT": MUTED,
    "RPO": MUTED,
    "naive GRPO 1:1": PROMPT,
    "naive GRPO 1:1.5": IDENTITY,
    "Customized-GRPO": THIRD,
}


def draw_figure1(runs: TableRuns, path: Path) -> Drawing:
    """Figure 1: identity against prompt following, each method where its held-out judges put it."""
    board = runs.board("table2", list(FIGURE1_ROWS), runs.seeds)
    judges = list(board.judges.values())
    lines = [(line, [line.change[judge] for judge in judges]) for line in board.lines if line.change]
    (result, *_) = (result for line, _ in lines for result in runs.finished("table2", line.row.name))
    scored = ([score for score in result["metrics"][judge]["base"] if score is not None] for judge in judges)
    base = [sum(arm) / len(arm) if arm else math.nan for arm in scored]
    figure, axes = canvas(f"Held-out judges ({runs.world}, {seeds_in_words(runs.seeds)})", (6.4, 4.4))
    spots = [Spot((base[0], base[1]), MUTED, "s", 7, note="base")]
    for line, changes in lines:
        colour = FIGURE1_ROWS[line.row.name]
        point = (base[0] + changes[0].mean, base[1] + changes[1].mean)
        spots.append(Spot(point, colour, size=8, note=_noted(line)))
        for place, (start, change) in enumerate(zip(base, changes, strict=True)):
            ends = [start + change.low, start + change.high]
            xs, ys = (ends, [point[1]] * 2) if place == 0 else ([point[0]] * 2, ends)
            axes.plot(xs, ys, color=colour, alpha=0.45, linewidth=1.4)
    draw_plane(axes, spots, judges[0], judges[1])
    return saved(figure, path)


ALPHAS = ("0.0", "0.2", "0.5", "0.8", "1.0")
STANDARD = {f"alpha {alpha}, standard": float(alpha) for alpha in ALPHAS}
INVERTED = {"alpha 0.5, inverted": PROMPT}
NAIVE = "naive GRPO 1:1"
FIGURE6_ROWS = {"table5": [*STANDARD, *INVERTED], "table2": [NAIVE]}


def draw_figure6(runs: TableRuns, path: Path) -> Drawing:
    """Figure 6: strength of the synergy (a), and the schedule of weights in the plane of both judges (b)."""
    seeds = runs.shared_seeds(FIGURE6_ROWS)
    board = runs.board("table5", FIGURE6_ROWS["table5"], seeds)
    lines = {line.row.name: line for line in board.lines if line.change}
    figure, (left, right) = panels(
        [f"Strength of the synergy ({runs.world}, {seeds_in_words(seeds)})", "Schedule"], (9.6, 3.8)
    )
    for axis, judge in board.judges.items():
        by_alpha = {alpha: lines[name].change[judge] for name, alpha in STANDARD.items() if name in lines}
        alphas, changes = list(by_alpha), list(by_alpha.values())
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
    naive = runs.board("table2", [NAIVE], seeds).lines[0] if runs.finished("table2", NAIVE) else None
    for line, note, colour in (
        *((lines.get(name), *words) for name, words in shown.items()),
        (naive, "naive 1:1", INK),
    ):
        if line is not None:
            across, up = (line.change[judge].mean for judge in board.judges.values())
            spots.append(Spot((across, up), colour, size=8, note=note))
    draw_plane(right, spots, "identity judge, change", "prompt judge, change", margin=0.25)
    return saved(figure, path)


UNTRAINED = ["best of 2", "best of 4", "best of 12"]
FRONT_ROWS = {
    "table2": [*UNTRAINED, "SFT", "RPO", "naive GRPO 1:1", "naive GRPO 1:1.5", "Customized-GRPO", "w/o TDW"],
    "table3": ["min", "max"],
    "table5": ["alpha 0.5, inverted"],
    "rivals": [
        *("raw sum", "after APEX", "TempFlow's weights"),
        *("raw sum, TempFlow's weights", "SARS + TDW, TempFlow's weights"),
    ],
}
COLOURS = dict.fromkeys([*UNTRAINED, "SFT", "RPO"], MUTED) | {"naive GRPO 1:1": PROMPT, "naive GRPO 1:1.5": PROMPT}


def draw_front(runs: TableRuns, path: Path) -> Drawing:
    """Every credit function in one plane: what trades identity for prompt following, and what lies beyond."""
    seeds = runs.shared_seeds(FRONT_ROWS)
    figure, axes = canvas(f"Change of the held-out judges ({runs.world}, {seeds_in_words(seeds)})", (7.6, 5.2))
    spots, judges = [Spot((0, 0), MUTED, "s", 7, note="base")], []
    for table, rows in FRONT_ROWS.items():
        board = runs.board(table, rows, seeds)
        judges = list(board.judges.values())
        for line in board.lines:
            if line.change:
                identity, prompt = (line.change[judge].mean for judge in judges)
                colour = COLOURS.get(line.row.name, IDENTITY if table == "rivals" else THIRD)
                mark = "D" if line.row.name in UNTRAINED else "o"
                spots.append(Spot((identity, prompt), colour, mark, 6, note=_noted(line)))
    draw_plane(axes, spots, judges[0], judges[1])
    return saved(figure, path)


def _noted(line: RowResult) -> str:
    return line.row.name + (f" ({line.lacking} seeds)" if line.lacking else "")


FIGURE1 = Exhibit("Identity against prompt following", "Figure 1", draw_figure1, {"table2": list(FIGURE1_ROWS)})
FIGURE6 = Exhibit("Synergy coefficient and schedule", "Figure 6", draw_figure6, FIGURE6_ROWS)
FRONT = Exhibit("Every credit function in one plane", "beyond the paper", draw_front, FRONT_ROWS)
