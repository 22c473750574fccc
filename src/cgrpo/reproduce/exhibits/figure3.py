"""Figure 3: a cross-section of SARS, where the prompt's advantage is 1, with a run's own samples near it."""

from __future__ import annotations

from pathlib import Path

from cgrpo.analysis import measure_conflict
from cgrpo.analysis.conflict import draw_cross_section, near_one
from cgrpo.build import make_subject
from cgrpo.evaluation.show.plots import canvas, save
from cgrpo.reproduce.exhibits.made import Exhibit, Made, Shown

ROW = "Customized-GRPO"


def draw(made: Made, path: Path) -> Shown:
    job, folder = made.run("table2", ROW)
    found = measure_conflict(make_subject(job.config, folder / "adapter"), made.count or 100)
    figure, axes = canvas("Credit where the prompt's advantage is 1", (5.6, 3.6))
    draw_cross_section(axes, found.alpha, near_one(found.adv_N2))
    save(figure, path.with_suffix(".png"))
    return Shown(pictures=[path.with_suffix(".png")])


EXHIBIT = Exhibit("A cross-section of SARS", "Figure 3", draw, {"table2": [ROW]})
