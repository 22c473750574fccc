"""Exhibits that are an analysis of one of the tables' runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cgrpo.analysis import AnalysisInputs, Result
from cgrpo.build import make_subject
from cgrpo.evaluation.show.plots import save
from cgrpo.reproduce.exhibits.made import Made, Shown


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
