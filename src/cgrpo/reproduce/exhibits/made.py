"""What an exhibit rests on, and what it comes to."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cgrpo.errors import UserError
from cgrpo.evaluation.show.table import Table
from cgrpo.reproduce.cells import Scoreboard, scoreboard
from cgrpo.reproduce.definition import Table as Definition
from cgrpo.reproduce.definition import load_table
from cgrpo.reproduce.results import Results
from cgrpo.reproduce.runs import Job, jobs_of


@dataclass(frozen=True)
class Made:
    """The trainings of one world. ``count``: groups or tasks that are drawn anew, in place of each exhibit's own."""

    world: str
    seeds: Sequence[int]
    settings: Sequence[str]
    results: Results
    runs: Path
    count: int | None = None

    def shared(self, rows: Mapping[str, Sequence[str]]) -> tuple[int, ...]:
        """The seeds that all those of the rows, by table, have of which any is there: what a picture may compare.
        Where they share none, all."""
        found = [
            {job.seed for job in self.jobs(table, row) if self.results.find(job.key)}
            for table, names in rows.items()
            for row in names
        ]
        return tuple(sorted(set(self.seeds).intersection(*filter(None, found)))) or tuple(self.seeds)

    def board(self, table: str, rows: Sequence[str], seeds: Sequence[int]) -> Scoreboard:
        """Rows of a table as found with these seeds. Raises UserError where none of them is there."""
        part = rows_of(table, rows)
        jobs = jobs_of(part, "toybox", self.world, seeds, self.settings)
        found = scoreboard(part, self.world, jobs, self.results)
        if not any(line.change for line in found.lines):
            raise UserError(f"no result of {', '.join(jobs)} ({self.world}); run cgrpo reproduce {table} first")
        return found

    def finished(self, table: str, row: str) -> list[dict[str, Any]]:
        """Results of a row's trainings, those that there are."""
        return [result for job in self.jobs(table, row) if (result := self.results.find(job.key))]

    def jobs(self, table: str, row: str) -> list[Job]:
        return jobs_of(rows_of(table, [row]), "toybox", self.world, self.seeds, self.settings)[row]

    def run(self, table: str, row: str) -> tuple[Job, Path]:
        """A row's first training of which the run directory is there. Raises UserError as `trained` does."""
        return self.trained(table, row)[0]

    def trained(self, table: str, row: str) -> list[tuple[Job, Path]]:
        """A row's trainings whose run directories are there, with them. Raises UserError that says how to make one."""
        jobs = self.jobs(table, row)
        found = [(job, self.runs / job.key) for job in jobs if (self.runs / job.key / "adapter").is_dir()]
        if not found:
            job = jobs[0]
            words = ["cgrpo", "train", job.recipe, *(word for s in job.settings for word in ("--set", s))]
            raise UserError(
                f"the run directory of {job.label} is not in {self.runs}; make it: {shlex.join(words)} --out "
                f"{self.runs / job.key}"
            )
        return found


def told(seeds: Sequence[int]) -> str:
    """ "seed 0"; "seeds 0, 2"."""
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


@dataclass(frozen=True)
class Shown:
    """Tables, and files of pictures, which lie where the exhibit was told."""

    tables: Sequence[Table] = ()
    pictures: Sequence[Path] = ()


@dataclass(frozen=True)
class Exhibit:
    """A figure, or a table that no training fills.

    rows    what it needs, by table: names of rows
    draw    (what was trained, a path without an ending) -> what is shown. Raises UserError where it lacks a run
    """

    title: str
    source: str
    draw: Callable[[Made, Path], Shown]
    rows: Mapping[str, Sequence[str]] = field(default_factory=dict)
    worlds: Sequence[str] = ("conflict",)


def rows_of(table: str, rows: Sequence[str]) -> Definition:
    """The table with these rows alone."""
    whole = load_table(table)
    return whole.model_copy(update={"rows": tuple(row for row in whole.rows if row.name in rows), "claims": ()})
