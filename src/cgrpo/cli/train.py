"""`cgrpo train`."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

from cgrpo.cli.shared import RECIPE, add_settings, add_verb, path
from cgrpo.errors import UserError

EXAMPLES = """\
cgrpo train
cgrpo train naive --set training.seed=1 --out outputs/naive-1
cgrpo train --resume outputs/naive-1"""


def add(verbs: argparse._SubParsersAction) -> None:
    train = add_verb(verbs, "train", "train a policy, compare it with its base, write a report", run, EXAMPLES)
    train.add_argument("recipe", nargs="?", help=RECIPE)
    add_settings(train)
    train.add_argument("--out", type=path, metavar="DIR", help="run directory (default: outputs/RECIPE-TIME)")
    train.add_argument("--resume", type=path, metavar="RUN", help="continue the run in this directory")


def run(options: argparse.Namespace) -> None:
    from cgrpo.config import load_config, override

    recipe = options.recipe or "toybox"
    if options.resume:
        for name, given in {"a recipe": options.recipe, "--out": options.out}.items():
            if given is not None:
                raise UserError(f"--resume {options.resume}: the run has its own settings and folder; leave {name} out")
        from cgrpo.training.record import Record

        cfg = override(Record.open(options.resume)[1], options.settings)
    else:
        cfg = load_config(recipe, options.settings)
    from cgrpo.commands.train import train

    folder = train(cfg, options.out, resume=options.resume, name=Path(recipe).stem)
    _say_summary(folder)


def _say_summary(folder: Path) -> None:
    summary = folder / "summary.json"
    if not summary.exists():  # another process's business
        return
    table = json.loads(summary.read_text())
    metrics, guard = table["metrics"], table.get("guard")
    if metrics:
        print(f"\n{'held-out':20s} {'role':7s} {'axis':9s} {'base':>7s} {'trained':>8s} {'change':>8s}  95 % interval")
    for name, row in metrics.items():
        numbers = {key: math.nan if value is None else value for key, value in row.items()}
        print(
            "{name:20s} {role:7s} {axis:9s} {base:7.3f} {trained:8.3f} {difference:+8.3f}  "
            "[{low:+.3f}, {high:+.3f}]".format(name=name, **numbers)
        )
    if guard:
        print("", *filter(None, (guard["stopped"], guard["kept"])), sep="\n")
    print(f"\nreport: {folder / 'report.html'}\nadapter: {folder / 'adapter'}")
    if guard and guard["best"]:
        print(f"best: {folder / 'best'}")
