"""`cgrpo reproduce`."""

from __future__ import annotations

import argparse
from pathlib import Path

from cgrpo.cli.shared import add_settings, add_verb, listed, path, positive

DOES = "the paper's tables and figures: train every row, compare, say what holds"
EXAMPLES = """\
cgrpo reproduce table2 --seeds 3 --jobs 2 --out outputs/tables
cgrpo reproduce table2 table5 --world mild --seeds 1 --set training.iterations=20 \\
    --out outputs/quick
cgrpo reproduce figure1 figure2 figure7 gallery --out outputs/tables
cgrpo reproduce table2 --scale full --gpu a100-80gb --gpus 8
cgrpo reproduce table2 --cluster slurm --cluster-set partition=long --cluster-set timeout_min=240
cgrpo reproduce table2 --scale full --train --set data.source=train.json \\
    --set evaluation.source=test.json
cgrpo reproduce --list"""


def add(verbs: argparse._SubParsersAction) -> None:
    verb = add_verb(verbs, "reproduce", DOES, run, EXAMPLES)
    verb.add_argument("names", nargs="*", metavar="NAME", help="tables and figures by name, or TOML files of tables")
    verb.add_argument("--list", action="store_true", help="say which tables, figures and worlds there are")
    verb.add_argument(
        "--scale",
        choices=("toybox", "full"),
        default="toybox",
        help="the toy world (default), or the real models: commands, memory and hours",
    )
    verb.add_argument("--train", action="store_true", help="full scale: train the rows, not only say what they take")
    verb.add_argument(
        "--world",
        action="append",
        default=[],
        metavar="NAME",
        help="a toy world in place of the table's own; more than once for several",
    )
    verb.add_argument("--seeds", type=listed, default=3, metavar="N", help="trainings a row (default: 3)")
    verb.add_argument(
        "--count",
        type=listed,
        metavar="N",
        help="groups, tasks or rounds that a figure draws (default: each its own)",
    )
    verb.add_argument(
        "--jobs", type=positive, metavar="N", help="trainings side by side (default: 1; on SLURM all of them)"
    )
    verb.add_argument(
        "--cluster",
        choices=("slurm", "local"),
        default="",
        help="trainings as jobs of a cluster, by submitit; local: its executor on this machine, to try it out",
    )
    verb.add_argument(
        "--cluster-set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="what the jobs ask for, as submitit names it: partition, timeout_min (default: a day; a training takes as "
        "many jobs as it needs), mem_gb, cpus_per_task, gpus_per_node",
    )
    verb.add_argument(
        "--out",
        type=path,
        default=Path("outputs/reproduce"),
        metavar="DIR",
        help="where tables, results and runs go (default: outputs/reproduce)",
    )
    verb.add_argument(
        "--results",
        type=path,
        action="append",
        default=[],
        metavar="DIR",
        help="another folder with finished trainings; nothing is written there",
    )
    verb.add_argument(
        "--gpu", default="a100-80gb", metavar="NAME", help="full scale: a GPU by name (default: a100-80gb)"
    )
    verb.add_argument("--gpus", type=positive, default=8, metavar="N", help="full scale: how many a row (default: 8)")
    add_settings(verb)


def run(options: argparse.Namespace) -> int:
    from cgrpo.errors import UserError
    from cgrpo.reproduce.definition import load_table, tables, worlds
    from cgrpo.reproduce.exhibits import EXHIBITS

    if options.list:
        for name in tables():
            table = load_table(name)
            print(
                f"{name:10s} {table.title} ({table.source}), {len(table.rows)} rows; worlds {', '.join(table.worlds)}"
            )
        for name, exhibit in EXHIBITS.items():
            print(f"{name:10s} {exhibit.title} ({exhibit.source}); worlds {', '.join(exhibit.worlds)}")
        print(
            "worlds:",
            *(f"{name} ({' '.join(settings) or 'the default'})" for name, settings in worlds().items()),
            sep="\n  ",
        )
        return 0
    if not options.names:
        raise UserError(f"name a table or figure: {', '.join((*tables(), *EXHIBITS))}")
    from cgrpo.commands.reproduce import Where, check_words, full_scale, reproduce
    from cgrpo.reproduce import board_tables

    check_words(options.scale, options.world, options.cluster, options.cluster_set)
    if options.scale == "full" and not options.train:
        rows = full_scale(options.names, options.seeds, options.gpu, options.gpus, options.settings)
        for row in rows:
            fits = f"{row['peak_gib']:.1f} GiB ({'fits' if row['fits'] else 'does NOT fit'})"
            print(f"# {row['table']}, {row['row']}, seed {row['seed']}: {fits}, {row['hours']:.0f} h")
            print(row["command"], end="\n\n")
        return 0 if all(row["fits"] for row in rows) else 1
    done = reproduce(
        options.names,
        options.out,
        seeds=options.seeds,
        worlds=options.world,
        where=Where(options.jobs, options.gpus if options.scale == "full" else 1, options.cluster, options.cluster_set),
        settings=options.settings,
        results=options.results,
        count=options.count,
        scale=options.scale,
    )
    shown = [table for exhibit in done.shown.values() for table in exhibit.tables]
    for table in (*(table for board in done.boards for table in board_tables(board)), *shown):
        print(f"\n{table.title}\n{table.text()}")
    for file in (file for exhibit in done.shown.values() for file in exhibit.pictures):
        print(file)
    for name, why in done.failed.items():
        print(f"{name}: {why}")
    print(f"\ntables: {options.out / 'reproduce.html'}, reproduce.md, reproduce.json")
    return 1 if done.failed else 0
