"""What `cgrpo reproduce` does: train rows of tables, draw figures, write them, or plan them at full scale."""

import os
import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgrpo.errors import UserError
from cgrpo.files import json_text, write_text
from cgrpo.plan import plan
from cgrpo.reproduce import (
    Cluster,
    Job,
    Results,
    Scoreboard,
    Table,
    board_page,
    board_tables,
    jobs_of,
    load_table,
    run_jobs,
    scoreboard,
    tables,
)
from cgrpo.reproduce.definition import Scale
from cgrpo.reproduce.exhibits import EXHIBITS, Drawing, Exhibit, TableRuns, rows_of

FULL = "full"  # in a world's place at full scale, which has but one


@dataclass(frozen=True)
class Where:
    """Where runs go.

    side_by_side  runs at a time; None: one here, all of them on SLURM
    gpus          processes of each run
    cluster       "slurm", or this machine: "local" or ""
    parameters    submitit's, each ``key=value``
    """

    side_by_side: int | None = None
    gpus: int = 1
    cluster: str = ""
    parameters: Sequence[str] = ()

    def at_once(self, runs: int) -> int:
        return self.side_by_side or (max(1, runs) if self.cluster == "slurm" else 1)

    def start(self, out: Path, scale: Scale, at_once: int) -> Cluster:
        """Raises UserError. On this machine the cores are divided between the trainings' processes."""
        if self.cluster == "slurm":
            return Cluster("slurm", out / "cluster", self.parameters, self.gpus if scale == "full" else 0)
        threads = max(1, (os.cpu_count() or 1) // (at_once * self.gpus))
        return Cluster("local", out / "cluster", self.parameters, threads=threads)


@dataclass(frozen=True)
class Reproduced:
    """Tables, exhibits by name and world, and why trainings (by key) or exhibits (by name) failed."""

    boards: list[Scoreboard]
    shown: dict[str, Drawing]
    failed: dict[str, str]


def reproduce(
    names: Sequence[str],
    out: Path,
    *,
    seeds: int = 3,
    worlds: Sequence[str] = (),
    where: Where | None = None,
    settings: Sequence[str] = (),
    results: Sequence[Path] = (),
    count: int | None = None,
    scale: Scale = "toybox",
    finished_only: bool = False,
) -> Reproduced:
    """Train what the tables and figures still lack and write them to ``out``.

    names      tables by name or file, and exhibits (reproduce/exhibits); worlds: each one's own where none is given
    settings   ``key=value`` for every training that has such a setting
    results    more folders with finished trainings, read alone
    count      groups, tasks or rounds of an exhibit, in place of its own
    scale      "full": the real models, tables alone; ``settings`` say where data and held-out tasks are
    finished_only   train nothing: show what finished runs give

    ``out`` gets results/ (a small file a training, named by content), runs/, figures/, and all of it as reproduce.md,
    .json and .html. An exhibit that lacks a run says which, and the others go on. Raises UserError for an unknown name
    or setting.
    """
    named_tables, exhibits = _split_names(names)
    worlds = list(dict.fromkeys(worlds))
    boards_of = [(t, world) for t in named_tables for world in ((FULL,) if scale == "full" else worlds or t.worlds)]
    jobs = {(t.name, world): jobs_of(t, scale, world, range(seeds), settings) for t, world in boards_of}
    if scale == "full":
        _check_full(exhibits, jobs)
    drawn = [(name, world) for name in exhibits for world in worlds or EXHIBITS[name].worlds]
    needed = [
        jobs_of(part, "toybox", world, range(seeds), settings)
        for name, world in drawn
        for part in _parts(EXHIBITS[name])
    ]
    rows = [row for part in (*jobs.values(), *needed) for row in part.values()]
    _check_used(settings, [job for row in rows for job in row])
    finished = Results(out / "results", *results)
    finished.check()
    # A seed of every row before the next seed, so that there is a whole table early.
    order = [job for seed in range(seeds) for row in rows for job in row[seed : seed + 1]]
    if finished_only:
        order = []
    elif missing := _missing_runs(order, finished):
        print(f"{missing}; --finished shows what is there and trains nothing", flush=True)
    where = where or Where()
    at_once = where.at_once(len(order))
    start = where.start(out, scale, at_once)
    progress = run_jobs(order, finished, out / "runs", start, at_once, gpus=where.gpus)
    boards = [scoreboard(t, world, jobs[t.name, world], finished, progress.failed) for t, world in boards_of]
    shown, lacking = {}, {}
    for name, world in drawn:
        place = f"{name}-{world}"
        try:
            (out / "figures").mkdir(parents=True, exist_ok=True)
            runs = TableRuns(world, range(seeds), settings, finished, out / "runs", count)
            shown[place] = EXHIBITS[name].draw(runs, out / "figures" / place)
        except UserError as error:
            lacking[place] = str(error)
    write_boards(boards, out, shown, lacking)
    return Reproduced(boards, shown, progress.failed | lacking)


def _missing_runs(jobs: Sequence[Job], finished: Results) -> str:
    """How many runs have no result yet, and how long one took where some have; "" where none lacks."""
    results = {job.key: finished.find(job.key) for job in jobs}
    lacking = sum(result is None for result in results.values())
    seconds = [result["seconds"] for result in results.values() if result is not None]
    took = f", about {statistics.median(seconds) / 60:.0f} minutes each by those that are there" if seconds else ""
    return f"{lacking} of {len(results)} runs to train{took}" if lacking else ""


def _check_used(settings: Sequence[str], jobs: Sequence[Job]) -> None:
    """Raises UserError for one that no training has: it would be left out in silence."""
    for setting in settings:
        if jobs and not any(setting in job.settings for job in jobs):
            raise UserError(f"--set {setting}: no training here has such a setting; write it as dotted.key=value")


def _check_full(exhibits: Sequence[str], jobs: Mapping[tuple[str, str], Mapping[str, Sequence[Job]]]) -> None:
    """Raises UserError where days of training would end with nothing to compare."""
    if exhibits:
        raise UserError(f"{exhibits[0]} is drawn of the embedded world; at full scale: cgrpo analyze RUN")
    for job in (job for rows in jobs.values() for row in rows.values() for job in row):
        cfg = job.config
        if not (cfg.evaluation.enabled and (cfg.evaluation.source or cfg.guard.source)):
            cure = "--set evaluation.source=FILE"
            raise UserError(f"evaluation.source: name held-out tasks that rows are compared on: {cure}")


def _split_names(names: Sequence[str]) -> tuple[list[Table], list[str]]:
    """The tables among ``names``, and the exhibits. Raises UserError for a name that is neither."""
    names = list(dict.fromkeys(names))
    for name in names:
        if name not in EXHIBITS and name not in tables() and not Path(name).exists():
            raise UserError(f"no table {name!r}: give one of {', '.join((*tables(), *EXHIBITS))}, or a TOML file")
    loaded = [load_table(name) for name in names if name not in EXHIBITS]
    for table in loaded:
        if sum(other.name == table.name for other in loaded) > 1:
            raise UserError(f"two tables are called {table.name!r}; rename a file, or give one of them another name")
    return loaded, [name for name in names if name in EXHIBITS]


def _parts(exhibit: Exhibit) -> list[Table]:
    return [rows_of(table, rows) for table, rows in exhibit.rows.items()]


def write_boards(
    boards: Sequence[Scoreboard],
    out: Path,
    shown: Mapping[str, Drawing] | None = None,
    lacking: Mapping[str, str] | None = None,
) -> None:
    """reproduce.md, reproduce.json and reproduce.html in ``out``, each whole or not at all; exhibits by name, and why
    some are ``lacking``. Raises OSError."""
    out.mkdir(parents=True, exist_ok=True)
    shown, lacking = shown or {}, lacking or {}
    parts = [table.markdown() for board in boards for table in board_tables(board)]
    for name, exhibit in shown.items():
        parts += [f"## {name}", *(table.markdown() for table in exhibit.tables)]
        parts += [f"![{name}]({file.relative_to(out).as_posix()})" for file in exhibit.pictures]
    parts += [f"## {name}\n\n{why}" for name, why in lacking.items()]
    write_text(out / "reproduce.md", "\n\n".join(parts) + "\n")
    write_text(out / "reproduce.json", json_text([b.as_dict() for b in boards], indent=1) + "\n")
    write_text(out / "reproduce.html", board_page(boards, shown, lacking).render())


def full_scale(names: Sequence[str], seeds: int, gpu: str, gpus: int, settings: Sequence[str]) -> list[dict[str, Any]]:
    """What each row takes with the real models: its command, peak memory and hours by plan. Trains nothing.

    Of a figure, the rows of tables that it needs.
    """
    named_tables, exhibits = _split_names(names)
    jobs = [
        (table, row, job)
        for table in (*named_tables, *(part for name in exhibits for part in _parts(EXHIBITS[name])))
        for row, seeded in jobs_of(table, "full", FULL, range(seeds), settings).items()
        for job in seeded
    ]
    _check_used(settings, [job for _, _, job in jobs])
    return [_planned(table, row, job, gpu, gpus) for table, row, job in jobs]


def _planned(table: Table, row: str, job: Job, gpu: str, gpus: int) -> dict[str, Any]:
    result = plan(job.config, gpu=gpu, gpus=gpus)
    words = ["cgrpo", "train", job.recipe, *(word for setting in job.settings for word in ("--set", setting))]
    start = f"torchrun --standalone --nproc_per_node {gpus} -m " if gpus > 1 else ""
    return {
        "table": table.name,
        "row": row,
        "seed": job.seed,
        "command": f"{start}{shlex.join(words)} --out outputs/{job.key}",
        "fits": result.fits,
        "peak_gib": result.memory.peak / 2**30,
        "hours": result.hours,
    }
