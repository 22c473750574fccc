"""`cgrpo train`: train a policy, compare it with its base, write a report."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cgrpo.app.options import Folder, Settings, command
from cgrpo.errors import UserError


def train(
    recipe: str | None = None,
    /,
    *,
    settings: Settings = (),
    out: Folder | None = None,
    resume: Annotated[Folder | None, Parameter(metavar="RUN")] = None,
) -> Path:
    """Train a policy, compare it with its base, write a report.

    Args:
        recipe: a packaged recipe or a TOML file (default: toybox)
        out: run directory (default: outputs/RECIPE-TIME)
        resume: continue the run in this directory
    """
    from cgrpo.app import run
    from cgrpo.config import load_config, override
    from cgrpo.training.record import Record

    if resume is None:
        recipe = recipe or "toybox"
        return run.train(load_config(recipe, settings), out, name=Path(recipe).stem)
    for name, value in {"a recipe": recipe, "--out": out}.items():
        if value is not None:
            raise UserError(f"--resume {resume}: the run has its own settings and folder; leave {name} out")
    return run.train(override(Record.open(resume)[1], settings), resume=resume, name="toybox")


def show_summary(folder: Path) -> None:
    """Print base against trained, and where the files are."""
    summary = folder / "summary.json"
    if not summary.exists():  # another process writes and prints it
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


EXAMPLES = """\
cgrpo train
cgrpo train naive --set training.seed=1 --out outputs/naive-1
cgrpo train --resume outputs/naive-1"""

app = command("train", train, EXAMPLES, show_summary)
