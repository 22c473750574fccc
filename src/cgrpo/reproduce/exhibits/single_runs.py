"""Exhibits of single runs: rewards over training, analyses, and pictures alongside (Figures 2 to 4, 7, 9 to 11)."""

from collections.abc import Callable
from pathlib import Path

from cgrpo.analysis import AnalysisInputs, Result, measure_conflict, measure_spectrum
from cgrpo.analysis.conflict import draw_cross_section, near_one
from cgrpo.build import make_subject
from cgrpo.evaluation.heldout import heldout_tasks
from cgrpo.evaluation.show.plots import IDENTITY, PROMPT, THIRD, canvas, legend, name_iterations, panels
from cgrpo.evaluation.show.sheets import row_sheet
from cgrpo.files import save_picture, to_float
from cgrpo.reproduce.exhibits.base import Drawing, Exhibit, TableRuns, sample_runs, saved
from cgrpo.training.record import RunRecord

FIGURE2_ROWS = {"naive GRPO 1:1": PROMPT, "naive GRPO 1:1.5": IDENTITY, "Customized-GRPO": THIRD}
GALLERY_ROWS = {"SFT": "SFT", "naive GRPO 1:1": "naive", "Customized-GRPO": "full"}
GALLERY_TASKS = 24
NAIVE, OURS = "naive GRPO 1:1", "Customized-GRPO"


def analysed(row: str, measure: Callable[[AnalysisInputs, int], Result], count: int) -> Callable[..., Drawing]:
    """Draws ``measure`` of the first run of Table 2's ``row``, with ``count`` groups or tasks by default."""

    def draw(runs: TableRuns, path: Path) -> Drawing:
        job, folder = runs.run_folders("table2", row)[0]
        result = measure(make_subject(job.config, folder / "adapter"), runs.count or count)
        return saved(result.draw(job.label), path, result.tables())

    return draw


def draw_figure2(runs: TableRuns, path: Path) -> Drawing:
    """Figure 2: both rewards over training, naive GRPO's two ratios beside the full method; a line a seed."""
    figure, plots = panels([f"Identity reward ({runs.world})", f"Prompt reward ({runs.world})"], (9.2, 3.4))
    for row, colour in FIGURE2_ROWS.items():
        folders = [folder for _, folder in runs.run_folders("table2", row)]
        for axes, reward in zip(plots, ("identity", "prompt"), strict=True):
            for seed, folder in enumerate(folders):
                rows = RunRecord(folder).rows()
                values = [to_float(metrics[f"reward/{reward}/mean"]) for metrics in rows]
                label = row if seed == 0 else "_"
                axes.plot(range(len(values)), smooth(values), color=colour, linewidth=1.6, alpha=0.8, label=label)
    for axes in plots:
        name_iterations(axes)
        legend(axes)
    return saved(figure, path)


def smooth(values: list[float]) -> list[float]:
    """Mean over a centred window of a sixth of the run, shorter at both ends: prompts differ between iterations."""
    half = len(values) // 12
    parts = [values[max(0, n - half) : n + half + 1] for n in range(len(values))]
    return [sum(part) / len(part) for part in parts]


def draw_figure3(runs: TableRuns, path: Path) -> Drawing:
    """Figure 3: a cross-section of SARS, where the prompt's advantage is 1, with a run's own samples near it."""
    job, folder = runs.run_folders("table2", OURS)[0]
    result = measure_conflict(make_subject(job.config, folder / "adapter"), runs.count or 100)
    figure, axes = canvas("Credit where the prompt's advantage is 1", (5.6, 3.6))
    draw_cross_section(axes, result.alpha, near_one(result.adv_N2))
    return saved(figure, path)


def draw_gallery(runs: TableRuns, path: Path) -> Drawing:
    """Pictures side by side, as in Figures 2 and 9 to 11: base, SFT, naive and the full method.

    All show the same held-out tasks from the same noise: each subject's first task, a rule that knows no scores.
    """
    folders = {words: runs.run_folders("table2", row)[0] for row, words in GALLERY_ROWS.items()}
    job, _ = folders["full"]
    _, tasks = heldout_tasks(job.config)
    first = range(0, len(tasks.batch), job.config.evaluation.prompts_per_subject)
    batch = tasks.batch.select(first[: runs.count or GALLERY_TASKS])
    file = path.with_suffix(".png")
    chosen = {"Each subject's first task": range(len(batch))}
    save_picture(row_sheet(batch, chosen, sample_runs(folders, batch)), file)
    return Drawing(pictures=[file])


FIGURE2 = Exhibit("Rewards over training", "Figure 2", draw_figure2, {"table2": list(FIGURE2_ROWS)})
FIGURE3 = Exhibit("A cross-section of SARS", "Figure 3", draw_figure3, {"table2": [OURS]})
FIGURE4 = Exhibit(
    "When structure and detail come to be", "Figure 4", analysed(OURS, measure_spectrum, 96), {"table2": [OURS]}
)
FIGURE7 = Exhibit(
    "Reward conflict, and what SARS makes of it",
    "Figure 7",
    analysed(NAIVE, measure_conflict, 300),
    {"table2": [NAIVE]},
)
GALLERY = Exhibit("Pictures side by side", "Figures 2 and 9 to 11", draw_gallery, {"table2": list(GALLERY_ROWS)})
