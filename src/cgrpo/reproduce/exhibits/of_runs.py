"""Exhibits of single runs: rewards over training, analyses, and pictures alongside (Figures 2 to 4, 7, 9 to 11)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from cgrpo.analysis import AnalysisInputs, Result, measure_conflict, measure_spectrum
from cgrpo.analysis.conflict import draw_cross_section, near_one
from cgrpo.build import make_policy, make_subject
from cgrpo.evaluation.heldout import heldout_tasks
from cgrpo.evaluation.sampling import ALONE, sample_tasks
from cgrpo.evaluation.show.plots import IDENTITY, PROMPT, THIRD, canvas, legend, name_iterations, panels, save
from cgrpo.evaluation.show.sheets import row_sheet
from cgrpo.files import save_picture, to_float
from cgrpo.reproduce.exhibits.made import Exhibit, Made, Shown
from cgrpo.training.record import RunRecord


def analysed(
    table: str, row: str, measure: Callable[[AnalysisInputs, int], Result], count: int
) -> Callable[[Made, Path], Shown]:
    """Draws ``measure`` of the row's first run, with ``count`` groups or tasks unless told otherwise."""

    def draw(made: Made, path: Path) -> Shown:
        job, folder = made.run(table, row)
        found = measure(make_subject(job.config, folder / "adapter"), made.count or count)
        file = path.with_suffix(".png")
        save(found.draw(job.label), file)
        return Shown(found.tables(), [file])

    return draw


FIGURE2_ROWS = {"naive GRPO 1:1": PROMPT, "naive GRPO 1:1.5": IDENTITY, "Customized-GRPO": THIRD}


def draw_figure2(made: Made, path: Path) -> Shown:
    """Figure 2: both rewards over training, naive GRPO's two ratios beside the full method; a line a seed."""
    figure, plots = panels([f"Identity reward ({made.world})", f"Prompt reward ({made.world})"], (9.2, 3.4))
    for row, colour in FIGURE2_ROWS.items():
        runs = [run for _, run in made.trained("table2", row)]
        for axes, reward in zip(plots, ("identity", "prompt"), strict=True):
            for seed, run in enumerate(runs):
                rows = RunRecord(run).rows()
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


FIGURE2 = Exhibit("Rewards over training", "Figure 2", draw_figure2, {"table2": list(FIGURE2_ROWS)})


FIGURE3_ROW = "Customized-GRPO"


def draw_figure3(made: Made, path: Path) -> Shown:
    """Figure 3: a cross-section of SARS, where the prompt's advantage is 1, with a run's own samples near it."""
    job, folder = made.run("table2", FIGURE3_ROW)
    found = measure_conflict(make_subject(job.config, folder / "adapter"), made.count or 100)
    figure, axes = canvas("Credit where the prompt's advantage is 1", (5.6, 3.6))
    draw_cross_section(axes, found.alpha, near_one(found.adv_N2))
    save(figure, path.with_suffix(".png"))
    return Shown(pictures=[path.with_suffix(".png")])


FIGURE3 = Exhibit("A cross-section of SARS", "Figure 3", draw_figure3, {"table2": [FIGURE3_ROW]})


FIGURE4_ROW = "Customized-GRPO"
FIGURE4 = Exhibit(
    "When structure and detail come to be",
    "Figure 4",
    analysed("table2", FIGURE4_ROW, measure_spectrum, 96),
    {"table2": [FIGURE4_ROW]},
)


FIGURE7_ROW = "naive GRPO 1:1"
FIGURE7 = Exhibit(
    "Reward conflict, and what SARS makes of it",
    "Figure 7",
    analysed("table2", FIGURE7_ROW, measure_conflict, 300),
    {"table2": [FIGURE7_ROW]},
)


GALLERY_ROWS = {"SFT": "SFT", "naive GRPO 1:1": "naive", "Customized-GRPO": "full"}
TASKS = 24


def draw_gallery(made: Made, path: Path) -> Shown:
    """Pictures side by side, as in Figures 2 and 9 to 11: base, SFT, naive and the full method.

    All show the same held-out tasks from the same noise: each subject's first task, a rule that knows no scores.
    """
    runs = {words: made.run("table2", row) for row, words in GALLERY_ROWS.items()}
    job, _ = runs["full"]
    _, tasks = heldout_tasks(job.config)
    first = range(0, len(tasks.batch), job.config.evaluation.prompts_per_subject)
    batch, pictures = tasks.batch.select(first[: made.count or TASKS]), dict[str, Tensor]()
    for words, (job, folder) in runs.items():
        policy = make_policy(job.config, adapter=folder / "adapter")
        sigmas = policy.sigmas(job.config.sampling.steps, job.config.sampling.shift)
        if "base" not in pictures:
            with policy.reference():
                pictures["base"] = sample_tasks(policy, sigmas, batch, job.config.evaluation.batch, ALONE)
        pictures[words] = sample_tasks(policy, sigmas, batch, job.config.evaluation.batch, ALONE)
    file = path.with_suffix(".png")
    save_picture(row_sheet(batch, {"Each subject's first task": range(len(batch))}, pictures), file)
    return Shown(pictures=[file])


GALLERY = Exhibit("Pictures side by side", "Figures 2 and 9 to 11", draw_gallery, {"table2": list(GALLERY_ROWS)})
