"""`cgrpo reproduce`: the paper's tables and figures, in the toy world or at full scale."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from cgrpo.app.options import Folder, Many, Positive, Settings, command
from cgrpo.errors import UserError

CLUSTER_SET = (
    "parameters of the jobs, as submitit names them: partition, timeout_min (default: a day; a run takes as many jobs "
    "as it needs), mem_gb, cpus_per_task, gpus_per_node; repeatable"
)


def reproduce(
    names: Annotated[Sequence[str], Parameter(metavar="NAME")] = (),
    /,
    *,
    listed: Annotated[bool, Parameter(name="--list")] = False,
    scale: Literal["toybox", "full"] = "toybox",
    train: bool = False,
    finished: bool = False,
    worlds: Annotated[Sequence[str], Parameter(name="--world", metavar="NAME")] = (),
    seeds: Many = 3,
    count: Many | None = None,
    jobs: Positive | None = None,
    cluster: Literal["slurm", "local"] | None = None,
    cluster_set: Annotated[Sequence[str], Parameter(metavar="KEY=VALUE", help=CLUSTER_SET)] = (),
    out: Folder = Path("outputs/reproduce"),
    results: Annotated[Sequence[Folder], Parameter(metavar="DIR")] = (),
    gpu: Annotated[str, Parameter(metavar="NAME")] = "a100-80gb",
    gpus: Positive = 8,
    settings: Settings = (),
) -> int:
    """The paper's tables and figures: train every row, compare, say what holds.

    Args:
        names: tables and figures by name, or TOML files of tables
        listed: print which tables, figures and worlds there are
        scale: the toy world, or the real models: commands, memory and hours
        train: full scale: train the rows instead of only printing what they take
        finished: train nothing; show what finished runs give
        worlds: a toy world in place of the table's own; repeatable
        seeds: runs per row
        count: groups, tasks or rounds that a figure draws (default: each its own)
        jobs: runs side by side (default: 1; on SLURM all of them)
        cluster: runs as jobs of a cluster, by submitit; local: its executor on this machine, to try it out
        out: where tables, results and runs go
        results: another folder with finished runs; nothing is written there; repeatable
        gpu: full scale: a GPU by name
        gpus: full scale: GPUs per row
    """
    if listed:
        _print_names()
        return 0
    from cgrpo.reproduce import tables
    from cgrpo.reproduce.exhibits import EXHIBITS

    if not names:
        raise UserError(f"name a table or figure: {', '.join((*tables(), *EXHIBITS))}")
    if scale == "full" and worlds:
        raise UserError("--world is of the embedded scale; leave it out with --scale full")
    if cluster_set and not cluster:
        raise UserError("--cluster-set is for a cluster's jobs; say which with --cluster")
    if scale == "full" and not train:
        return _print_plans(names, seeds, gpu, gpus, settings)
    from cgrpo.app import reproduction
    from cgrpo.reproduce import board_tables

    where = reproduction.Where(jobs, gpus if scale == "full" else 1, cluster or "", cluster_set)
    reproduced = reproduction.reproduce(
        names,
        out,
        seeds=seeds,
        worlds=worlds,
        where=where,
        settings=settings,
        results=results,
        count=count,
        scale=scale,
        finished_only=finished,
    )
    shown = reproduced.shown.values()
    boards = [table for board in reproduced.boards for table in board_tables(board)]
    for table in (*boards, *(table for exhibit in shown for table in exhibit.tables)):
        print(f"\n{table.title}\n{table.text()}")
    for file in (file for exhibit in shown for file in exhibit.pictures):
        print(file)
    for name, reason in reproduced.failed.items():
        print(f"{name}: {reason}")
    print(f"\ntables: {out / 'reproduce.html'}, reproduce.md, reproduce.json")
    return 1 if reproduced.failed else 0


def _print_names() -> None:
    from cgrpo.reproduce import load_table, tables, worlds
    from cgrpo.reproduce.exhibits import EXHIBITS

    width = max(map(len, (*tables(), *EXHIBITS)))
    for name in tables():
        table = load_table(name)
        rows = f"{len(table.rows)} rows; worlds {', '.join(table.worlds)}"
        print(f"{name:{width}s} {table.title} ({table.source}), {rows}")
    for name, exhibit in EXHIBITS.items():
        print(f"{name:{width}s} {exhibit.title} ({exhibit.source}); worlds {', '.join(exhibit.worlds)}")
    print("worlds:")
    for name, settings in worlds().items():
        print(f"  {name} ({' '.join(settings) or 'the default'})")


def _print_plans(names: Sequence[str], seeds: int, gpu: str, gpus: int, settings: Sequence[str]) -> int:
    """Print each row's command, memory and hours; 1 if one does not fit."""
    from cgrpo.app.reproduction import full_scale

    rows = full_scale(names, seeds, gpu, gpus, settings)
    for row in rows:
        fits = f"{row['peak_gib']:.1f} GiB ({'fits' if row['fits'] else 'does NOT fit'})"
        print(f"# {row['table']}, {row['row']}, seed {row['seed']}: {fits}, {row['hours']:.0f} h")
        print(row["command"], end="\n\n")
    return 0 if all(row["fits"] for row in rows) else 1


EXAMPLES = """\
cgrpo reproduce table2 --seeds 3 --jobs 2 --out outputs/tables
cgrpo reproduce table2 table5 --world mild --seeds 1 \\
    --set training.iterations=20 \\
    --out outputs/quick
cgrpo reproduce figure1 figure2 figure7 gallery --out outputs/tables
cgrpo reproduce table2 --finished --results results/runs --seeds 5
cgrpo reproduce table2 --scale full --gpu a100-80gb --gpus 8
cgrpo reproduce table2 --cluster slurm --cluster-set partition=long \\
    --cluster-set timeout_min=240
cgrpo reproduce table2 --scale full --train --set data.source=train.json \\
    --set evaluation.source=test.json
cgrpo reproduce --list"""

app = command("reproduce", reproduce, EXAMPLES)
