"""Figure 2: both rewards over training, naive GRPO's two ratios beside the full method; a line a seed."""

from __future__ import annotations

from pathlib import Path

from cgrpo.evaluation.show.plots import IDENTITY, PROMPT, THIRD, legend, name_iterations, panels, save
from cgrpo.files import to_float
from cgrpo.reproduce.exhibits.made import Exhibit, Made, Shown
from cgrpo.training.record import Record

ROWS = {"naive GRPO 1:1": PROMPT, "naive GRPO 1:1.5": IDENTITY, "Customized-GRPO": THIRD}


def draw(made: Made, path: Path) -> Shown:
    figure, plots = panels([f"Identity reward ({made.world})", f"Prompt reward ({made.world})"], (9.2, 3.4))
    for row, colour in ROWS.items():
        runs = [run for _, run in made.trained("table2", row)]
        for axes, reward in zip(plots, ("identity", "prompt"), strict=True):
            for seed, run in enumerate(runs):
                rows = Record(run).rows()
                values = [to_float(metrics[f"reward/{reward}/mean"]) for metrics in rows]
                label = row if seed == 0 else "_"
                axes.plot(range(len(values)), smooth(values), color=colour, linewidth=1.6, alpha=0.8, label=label)
    for axes in plots:
        name_iterations(axes)
        legend(axes)
    save(figure, path.with_suffix(".png"))
    return Shown(pictures=[path.with_suffix(".png")])


def smooth(values: list[float]) -> list[float]:
    """Mean over a centred window of a sixth of the run, shorter at both ends: prompts differ between iterations."""
    half = len(values) // 12
    parts = [values[max(0, n - half) : n + half + 1] for n in range(len(values))]
    return [sum(part) / len(part) for part in parts]


EXHIBIT = Exhibit("Rewards over training", "Figure 2", draw, {"table2": list(ROWS)})
