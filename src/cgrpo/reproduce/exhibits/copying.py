"""The copy world in two exhibits: how many pictures are copies, by row and iteration, and three tasks to look at."""

from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from cgrpo.errors import UserError
from cgrpo.evaluation.heldout import heldout_tasks
from cgrpo.evaluation.show.plots import IDENTITY, INK, MUTED, PROMPT, SERIES, THIRD, legend, name_iterations, panels
from cgrpo.files import save_picture
from cgrpo.reproduce.exhibits.base import Drawing, Exhibit, TableRuns, sample_runs, saved
from cgrpo.reproduce.results import COPIES
from cgrpo.rewards.base import to_pictures, to_tensor
from cgrpo.rewards.measures import CopyPaste
from cgrpo.types import Batch

TABLE = "copy"
COLOURS = {"naive": PROMPT, "1:1.5": IDENTITY, "SARS": SERIES[2], "TDW": SERIES[4], "full": THIRD}
PROCESSES = ("forward", "GRPO")
CURVES = [f"{process} {method}" for process in PROCESSES for method in COLOURS]
NAIVE, OURS = "forward naive", "forward full"
TASKS, SIDE, GAP, MARGIN, COLUMNS = 3, 196, 10, 12, 4
THRESHOLD = 0.9  # where a world counts no copies
STORED = "copy-pictures.png"
COPY_RED = (200, 30, 30)


def draw_curves(runs: TableRuns, path: Path) -> Drawing:
    """Left: share of copies on validation tasks while training, a line per seed. Right: on test tasks, at the end."""
    titles = [f"Copies while training, {process}" for process in PROCESSES] + ["Copies at the end (test tasks)"]
    figure, (*curves, right) = panels(titles, (12.6, 3.6))
    results = {row: [r for r in runs.finished(TABLE, row) if COPIES in r["metrics"]] for row in CURVES}
    shown = {row: of_row for row, of_row in results.items() if of_row}
    if not shown:
        raise UserError(f"no run of table {TABLE} ({runs.world}) counted copies; run cgrpo reproduce {TABLE} first")
    for place, (row, results) in enumerate(shown.items()):
        process, _, method = row.partition(" ")
        _curves(curves[PROCESSES.index(process)], method, results)
        ends = [_share(result, "trained") for result in results]
        right.plot(ends, [place] * len(ends), "o", color=COLOURS[method], markersize=6, alpha=0.8)
    base = _share(next(iter(shown.values()))[0], "base")
    right.axvline(base, color=MUTED, dashes=(4, 3), label=f"base, {base:.2f}")
    right.set_yticks(range(len(shown)), [f"{row} ({len(results)})" for row, results in shown.items()])
    right.invert_yaxis()
    right.set_xlim(left=-0.01)
    right.set_xlabel("share of copies, a dot per seed")
    top = max(axes.get_ylim()[1] for axes in curves)
    for axes in curves:
        axes.set_ylim(0, top)
        name_iterations(axes)
    for axes in (*curves, right):
        legend(axes)
    return saved(figure, path)


def _curves(axes: Axes, method: str, results: list[dict[str, Any]]) -> None:
    label = method
    for checks in (result["checks"] for result in results if "checks" in result):
        shares = checks["metrics"][COPIES]
        axes.plot(checks["iterations"], shares, color=COLOURS[method], marker="o", markersize=3, label=label)
        label = "_"


def _share(result: dict[str, Any], arm: str) -> float:
    shares = [share for share in result["metrics"][COPIES][arm] if share is not None]
    return sum(shares) / len(shares)


def draw_pictures(runs: TableRuns, path: Path) -> Drawing:
    """Reference, base, naive and the full method on three test tasks, and the share of copies of all test tasks.

    Of each subject's first task those where naive's picture is nearest to its reference, of three different prompts.
    """
    job = runs.jobs(TABLE, NAIVE)[0]
    _, tasks = heldout_tasks(job.config)
    batch = tasks.batch.select(range(0, len(tasks.batch), job.config.evaluation.prompts_per_subject))
    drawn_NHWC = _stored(runs, len(batch)) or _sampled(runs, batch)
    near = {name: CopyPaste()(images_NHWC, batch) for name, images_NHWC in drawn_NHWC.items()}
    nearest = near["naive"].argsort(descending=True, stable=True).tolist()
    chosen: dict[str, int] = {}
    for n in nearest:
        chosen.setdefault(batch.prompts[n], n)
    threshold = job.config.evaluation.copies or THRESHOLD
    rows = []
    for prompt, n in list(chosen.items())[:TASKS]:
        shown = [(batch.references[n][0], False)]
        for name, images_NHWC in drawn_NHWC.items():
            shown.append((to_pictures(images_NHWC[n][None])[0], near[name][n].item() > threshold))
        rows.append((prompt, shown))
    file = path.with_suffix(".png")
    save_picture(picture_sheet(rows, _shares(runs)), file)
    return Drawing(pictures=[file])


def _shares(runs: TableRuns) -> dict[str, str]:
    """Of the runs that the pictures are of: how many of all test pictures are copies."""
    naive, ours = runs.finished(TABLE, NAIVE), runs.finished(TABLE, OURS)
    arms = {"base": (naive, "base"), "naive": (naive, "trained"), "full": (ours, "trained")}
    return {
        name: f"{100 * _share(results[0], arm):.0f} % are copies" for name, (results, arm) in arms.items() if results
    }


def _stored(runs: TableRuns, count: int) -> dict[str, Tensor]:
    """The pictures that an earlier call stored with the results, by policy; {} without any."""
    for folder in (runs.results.folder, *runs.results.also):
        if (folder / STORED).is_file():
            with Image.open(folder / STORED) as strip:
                pixels_HWC = to_tensor([strip.convert("RGB")])[0]
            side = pixels_HWC.shape[0] // 3
            tiles = pixels_HWC.unflatten(0, (3, side)).unflatten(2, (-1, side)).transpose(1, 2)
            if tiles.shape[1] == count:
                return dict(zip(("base", "naive", "full"), tiles, strict=True))
    return {}


def _sampled(runs: TableRuns, batch: Batch) -> dict[str, Tensor]:
    """Drawn from the run directories, and stored as one picture: a row per policy, a column per task."""
    folders = {name: runs.run_folders(TABLE, row)[0] for name, row in (("naive", NAIVE), ("full", OURS))}
    pictures = sample_runs(folders, batch)
    strip_HWC = torch.cat([images_NHWC.transpose(0, 1).flatten(1, 2) for images_NHWC in pictures.values()])
    save_picture(to_pictures(strip_HWC[None])[0], runs.results.folder / STORED)
    return pictures


def picture_sheet(rows: list[tuple[str, list[tuple[Image.Image, bool]]]], shares: dict[str, str]) -> Image.Image:
    """A line of large pictures for each prompt, copies framed in red; ``shares`` stand below the columns' names."""
    heads = {"reference photo": "", "before training": "base", "naive (plain sum)": "naive", "SARS + TDW": "full"}
    width = 2 * MARGIN + COLUMNS * SIDE + (COLUMNS - 1) * GAP
    top, line = 62, SIDE + 44
    sheet = Image.new("RGB", (width, top + line * len(rows)), "white")
    pen, large, small = ImageDraw.Draw(sheet), ImageFont.load_default(19), ImageFont.load_default(16)
    for column, (head, name) in enumerate(heads.items()):
        x = MARGIN + column * (SIDE + GAP)
        pen.text((x, 8), head, INK, large)
        pen.text((x, 34), shares.get(name, ""), MUTED, small)
    for number, (prompt, pictures) in enumerate(rows):
        y = top + number * line
        pen.text((MARGIN, y), f"\N{LEFT DOUBLE QUOTATION MARK}{prompt}\N{RIGHT DOUBLE QUOTATION MARK}", INK, large)
        for column, (picture, copied) in enumerate(pictures):
            x = MARGIN + column * (SIDE + GAP)
            sheet.paste(picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.NEAREST), (x, y + 28))
            if copied:
                pen.rectangle((x - 3, y + 25, x + SIDE + 2, y + SIDE + 30), outline=COPY_RED, width=4)
                pen.rectangle((x, y + SIDE + 4, x + 54, y + SIDE + 28), fill=COPY_RED)
                pen.text((x + 6, y + SIDE + 5), "copy", "white", small)
    return sheet


CURVES_EXHIBIT = Exhibit("Copies by row and iteration", "beyond the paper", draw_curves, {TABLE: CURVES}, ["copy"])
PICTURES_EXHIBIT = Exhibit(
    "Naive copies, the full method draws", "beyond the paper", draw_pictures, {TABLE: [NAIVE, OURS]}, ["copy"]
)
