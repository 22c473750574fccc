"""Draws docs/images/effects.png: what SARS, TDW and both change on the held-out judges, in each world, with intervals.

Paired differences of the runs in results/runs; the band is what counts as equal.

python tools/forest.py
"""

from __future__ import annotations

from pathlib import Path

from cgrpo.evaluation.show.plots import INK, MUTED, axis_colour, panels, save
from cgrpo.evaluation.statistics.paired import TwoLevel
from cgrpo.reproduce import Results, jobs_of, load_table, scoreboard
from cgrpo.reproduce.definition import LEVEL, Claim

ROOT = Path(__file__).parents[1]
EFFECTS = {
    "SARS, with TDW": ("table2", "Customized-GRPO", "w/o synergy", ("mild", "conflict", "hard")),
    "TDW, with SARS": ("table2", "Customized-GRPO", "w/o TDW", ("mild", "conflict", "hard")),
    "both, against naive GRPO": ("table2", "Customized-GRPO", "naive GRPO 1:1", ("mild", "conflict", "hard")),
    "SARS, against naive (forward)": ("copy", "forward SARS", "forward naive", ("copy",)),
    "SARS, against a constant 0.55 (forward)": ("copy", "forward SARS", "forward constant 0.55", ("copy",)),
    "both, against naive (forward)": ("copy", "forward full", "forward naive", ("copy",)),
    "both, against naive (GRPO)": ("copy", "GRPO full", "GRPO naive", ("copy",)),
}
AXES = ("identity", "prompt")
SEEDS = range(5)


def differences() -> dict[str, list[tuple[str, list[TwoLevel]]]]:
    """{effect: [(world, [identity, prompt])]}, of what was run."""
    results, found = Results(ROOT / "results" / "runs"), {}
    for effect, (name, row, against, worlds) in EFFECTS.items():
        claims = [Claim(says=axis, row=row, lies="above", against=against, axis=axis) for axis in AXES]
        table = load_table(name).model_copy(update={"claims": claims})
        for world in worlds:
            board = scoreboard(table, world, jobs_of(table, "toybox", world, SEEDS), results)
            gaps = [judged.difference for judged in board.claims]
            if all(gaps):
                found.setdefault(effect, []).append((world, [gap for gap in gaps if gap]))
    return found


def draw(found: dict[str, list[tuple[str, list[TwoLevel]]]], path: Path) -> None:
    figure, axes = panels(["identity judge", "prompt judge"], (9.6, 4.6))
    labels = [(effect, world) for effect, rows in found.items() for world, _ in rows]
    heights = {pair: -index - 0.6 * list(found).index(pair[0]) for index, pair in enumerate(labels)}
    for place, (axis, panel) in enumerate(zip(AXES, axes, strict=True)):
        panel.axvspan(-LEVEL, LEVEL, color=MUTED, alpha=0.18, linewidth=0)
        panel.axvline(0, color=INK, linewidth=0.8)
        for effect, rows in found.items():
            for world, gaps in rows:
                gap, y = gaps[place], heights[effect, world]
                panel.plot([gap.low, gap.high], [y, y], color=axis_colour(axis), linewidth=1.6)
                panel.plot(gap.mean, y, "o", color=axis_colour(axis), markersize=5)
        panel.set_yticks(list(heights.values()))
        panel.set_yticklabels([])
        panel.set_xlabel("difference; the grey band counts as equal")
        panel.grid(axis="y", visible=False)
    seeds = {(effect, world): gaps[0].seeds for effect, rows in found.items() for world, gaps in rows}
    axes[0].set_yticklabels([f"{effect}: {world} ({seeds[effect, world]} seeds)" for effect, world in labels])
    save(figure, path)


if __name__ == "__main__":
    draw(differences(), ROOT / "docs" / "images" / "effects.png")
