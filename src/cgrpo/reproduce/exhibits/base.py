"""What an exhibit rests on, and what it comes to."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from cgrpo.build import make_policy
from cgrpo.errors import UserError
from cgrpo.evaluation.sampling import ALONE, sample_tasks
from cgrpo.evaluation.show.plots import save
from cgrpo.evaluation.show.table import Table
from cgrpo.reproduce.cells import Scoreboard, scoreboard
from cgrpo.reproduce.definition import Table as Definition
from cgrpo.reproduce.definition import load_table
from cgrpo.reproduce.results import Results
from cgrpo.reproduce.runs import Job, jobs_of
from cgrpo.types import Batch


@dataclass(frozen=True)
class TableRuns:
    """The runs of tables in one world. ``count``: groups or tasks to draw anew, in place of each exhibit's own."""

    world: str
    seeds: Sequence[int]
    settings: Sequence[str]
    results: Results
    folder: Path
    count: int | None = None

    def jobs(self, table: str, row: str) -> list[Job]:
        return jobs_of(rows_of(table, [row]), "toybox", self.world, self.seeds, self.settings)[row]

    def finished(self, table: str, row: str) -> list[dict[str, Any]]:
        """The results of a row's runs that have one."""
        return [result for job in self.jobs(table, row) if (result := self.results.find(job.key))]

    def shared_seeds(self, rows: Mapping[str, Sequence[str]]) -> tuple[int, ...]:
        """The seeds that every row with a result has: what a picture may compare. All seeds if rows share none."""
        by_row = [
            {job.seed for job in self.jobs(table, row) if self.results.find(job.key)}
            for table, names in rows.items()
            for row in names
        ]
        return tuple(sorted(set(self.seeds).intersection(*filter(None, by_row)))) or tuple(self.seeds)

    def board(self, table: str, rows: Sequence[str], seeds: Sequence[int]) -> Scoreboard:
        """The scoreboard of some rows with these seeds. Raises UserError if none of them has a result."""
        part = rows_of(table, rows)
        jobs = jobs_of(part, "toybox", self.world, seeds, self.settings)
        board = scoreboard(part, self.world, jobs, self.results)
        if not any(line.change for line in board.lines):
            raise UserError(f"no result of {', '.join(jobs)} ({self.world}); run cgrpo reproduce {table} first")
        return board

    def run_folders(self, table: str, row: str) -> list[tuple[Job, Path]]:
        """A row's jobs whose run directories exist, with them. Raises UserError with the command that makes one."""
        jobs = self.jobs(table, row)
        folders = [(job, self.folder / job.key) for job in jobs if (self.folder / job.key / "adapter").is_dir()]
        if not folders:
            job = jobs[0]
            words = ["cgrpo", "train", job.recipe, *(word for s in job.settings for word in ("--set", s))]
            raise UserError(
                f"the run directory of {job.label} is not in {self.folder}",
                f"make it: {shlex.join(words)} --out {self.folder / job.key}",
            )
        return folders


@dataclass(frozen=True)
class Drawing:
    """What an exhibit shows: tables, and files of pictures."""

    tables: Sequence[Table] = ()
    pictures: Sequence[Path] = ()


@dataclass(frozen=True)
class Exhibit:
    """A figure, or a table that no run fills.

    draw    (the runs, a path without an ending) -> what is shown. Raises UserError if a run is missing
    rows    what it needs: names of rows by table
    """

    title: str
    source: str
    draw: Callable[[TableRuns, Path], Drawing]
    rows: Mapping[str, Sequence[str]] = field(default_factory=dict)
    worlds: Sequence[str] = ("conflict",)


def rows_of(table: str, rows: Sequence[str]) -> Definition:
    """The table with these rows alone."""
    whole = load_table(table)
    return whole.model_copy(update={"rows": tuple(row for row in whole.rows if row.name in rows), "claims": ()})


def saved(figure: Figure, path: Path, tables: Sequence[Table] = ()) -> Drawing:
    """Write the figure as ``path``.png."""
    file = path.with_suffix(".png")
    save(figure, file)
    return Drawing(tables, [file])


def seeds_in_words(seeds: Sequence[int]) -> str:
    """ "seed 0"; "seeds 0, 2"."""
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def sample_runs(runs: Mapping[str, tuple[Job, Path]], batch: Batch) -> dict[str, Tensor]:
    """Pictures [N, H, W, 3] of the tasks by "base" and by each run, all from the same noise."""
    pictures: dict[str, Tensor] = {}
    for name, (job, folder) in runs.items():
        policy = make_policy(job.config, adapter=folder / "adapter")
        sigmas = policy.sigmas(job.config.sampling.steps, job.config.sampling.shift)
        if not pictures:
            with policy.reference():
                pictures["base"] = sample_tasks(policy, sigmas, batch, job.config.evaluation.batch, ALONE)
        pictures[name] = sample_tasks(policy, sigmas, batch, job.config.evaluation.batch, ALONE)
    return pictures
