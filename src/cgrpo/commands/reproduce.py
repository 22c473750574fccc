"""`cgrpo reproduce`: the paper's tables in the embedded world, or what they take at full scale."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cgrpo.errors import UserError
from cgrpo.files import json_text, write_text
from cgrpo.plan import plan
from cgrpo.reproduce import (
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
)


def reproduce(
    names: Sequence[str],
    out: Path,
    *,
    seeds: int = 3,
    worlds: Sequence[str] = (),
    side_by_side: int = 1,
    settings: Sequence[str] = (),
    results: Sequence[Path] = (),
) -> tuple[list[Scoreboard], dict[str, str]]:
    """Train what the tables still lack in the embedded world and write them to ``out``.

    names      tables by name or file; worlds: each table's own where none is given
    settings   ``key=value`` for every training that has such a setting
    results    more folders with finished trainings, read alone

    ``out`` gets results/ (a small file a training, named by content), runs/, and the tables as reproduce.md, .json and
    .html. Returns the scoreboards and, by key, why trainings failed. Raises UserError for an unknown name or setting.
    """
    wanted = [(table, world) for table in map(load_table, names) for world in worlds or table.worlds]
    jobs = {(t.name, w): jobs_of(t, "toybox", w, range(seeds), settings) for t, w in wanted}
    known = Results(out / "results", *results)
    # A seed of every row before the next seed, so that there is a whole table early.
    order = [
        job for seed in range(seeds) for rows in jobs.values() for row in rows.values() for job in row[seed : seed + 1]
    ]
    progress = run_jobs(order, known, out / "runs", side_by_side)
    boards = [scoreboard(t, w, jobs[t.name, w], known, progress.failed) for t, w in wanted]
    write_boards(boards, out)
    return boards, progress.failed


def write_boards(boards: Sequence[Scoreboard], out: Path) -> None:
    """reproduce.md, reproduce.json and reproduce.html in ``out``, each whole or not at all. Raises OSError."""
    out.mkdir(parents=True, exist_ok=True)
    parts = [table.markdown() for board in boards for table in board_tables(board)]
    write_text(out / "reproduce.md", "\n\n".join(parts) + "\n")
    write_text(out / "reproduce.json", json_text([b.as_dict() for b in boards], indent=1) + "\n")
    write_text(out / "reproduce.html", board_page(boards).render())


def full_scale(names: Sequence[str], seeds: int, gpu: str, gpus: int, settings: Sequence[str]) -> list[dict[str, Any]]:
    """What each row takes with the real models: its command, peak memory and hours by plan. Trains nothing."""
    found = []
    for table in map(load_table, names):
        for row, jobs in jobs_of(table, "full", "", range(seeds), settings).items():
            found += [_row(table, row, job, gpu, gpus) for job in jobs]
    return found


def _row(table: Table, row: str, job: Job, gpu: str, gpus: int) -> dict[str, Any]:
    told = plan(job.config, gpu=gpu, gpus=gpus)
    words = ["cgrpo", "train", job.recipe, *(word for setting in job.settings for word in ("--set", setting))]
    start = f"torchrun --standalone --nproc_per_node {gpus} -m " if gpus > 1 else ""
    return {
        "table": table.name,
        "row": row,
        "seed": job.seed,
        "command": f"{start}{shlex.join(words)} --out outputs/{job.key}",
        "fits": told.fits,
        "peak_gib": told.memory.peak / 2**30,
        "hours": told.hours,
    }


def check_worlds(scale: str, worlds: Sequence[str]) -> None:
    """Raises UserError where worlds are asked for that full scale has not."""
    if scale == "full" and worlds:
        raise UserError("--world is of the embedded scale; leave it out with --scale full")
