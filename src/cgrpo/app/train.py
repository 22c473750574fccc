"""`cgrpo train`: train a policy, compare it with its base, write a report."""

import json
import shlex
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cgrpo.app.options import Folder, Settings, command
from cgrpo.app.terminal import coloured, print_header, print_table
from cgrpo.errors import UserError


def train(
    recipe: str | None = None,
    /,
    *,
    settings: Settings = (),
    out: Folder | None = None,
    resume: Annotated[Folder | None, Parameter(metavar="RUN")] = None,
    listed: Annotated[bool, Parameter(name="--list")] = False,
) -> Path | None:
    """Train a policy, compare it with its base, write a report.

    Args:
        recipe: a packaged recipe or a TOML file (default: toybox)
        out: run directory (default: outputs/RECIPE-TIME)
        resume: continue the run in this directory
        listed: print the packaged recipes, a line for each
    """
    from cgrpo.config import load_config, override, recipes, sentence
    from cgrpo.launch import launched, run_folder
    from cgrpo.training.record import RunRecord

    if listed:
        print(*(f"{name:<20} {sentence(path)}" for name, path in recipes().items()), sep="\n")
        return None
    if resume is None:
        cfg, name = load_config(recipe or "toybox", settings), Path(recipe or "toybox").stem
        folder = out or run_folder(name)
    else:
        for word, value in {"a recipe": recipe, "--out": out}.items():
            if value is not None:
                raise UserError(f"--resume {resume}: the run has its own settings and folder; leave {word} out")
        record, began_with = RunRecord.open(resume)
        folder, cfg = resume, override(began_with, settings)
        name = record.beginning().get("recipe", resume.resolve().name)
    if launched()[0] == 0:  # before torch is loaded, which takes seconds
        print_header(cfg, name, folder, resumed=resume is not None)
    from cgrpo.app import run

    return run.train(cfg, None if resume else folder, resume=resume, name=name)


def show_summary(folder: Path | None) -> None:
    """Print a verdict, base against trained, where the files are, and what to type next."""
    from cgrpo.evaluation.metrics import movement
    from cgrpo.evaluation.pages.report.page import verdict
    from cgrpo.evaluation.show.table import Table, interval, number

    if folder is None or not (folder / "summary.json").exists():  # a list, or another process prints
        return
    summary = json.loads((folder / "summary.json").read_text())
    metrics, guard = summary["metrics"], summary.get("guard")
    result = verdict(metrics, summary["iterations"])
    print(f"\n{coloured(result.text, result.kind)}\n")
    if metrics:
        rows = [
            [
                name,
                *(metric[key] for key in ("role", "axis")),
                *(number(metric[key]) for key in ("base", "trained")),
                number(metric["difference"], signed=True),
                f"[{interval(metric['low'], metric['high'])}]",
            ]
            for name, metric in metrics.items()
        ]
        head = ["held-out", "role", "axis", "base", "trained", "change", "95 % interval"]
        tones = ["muted" if metric["role"] == "guard" else movement(metric) for metric in metrics.values()]
        print_table(Table("Held-out", "", head, rows, "lllrrrl"), tones)
    if guard:
        print("", *filter(None, (guard["stopped"], guard["kept"])), sep="\n")
    best = guard and guard["best"]
    print(f"\nreport: {folder / 'report.html'}\nadapter: {folder / 'adapter'}")
    if best:
        print(f"best: {folder / 'best'}")
    adapter = shlex.quote(str(folder / ("best" if best else "adapter")))
    print(f'next: cgrpo sample {adapter} --reference photo.png --prompt "a toy in the snow" --out pictures')


EXAMPLES = """\
cgrpo train
cgrpo train --list
cgrpo train naive --set training.seed=1 --out outputs/naive-1
cgrpo train --resume outputs/naive-1"""

app = command("train", train, EXAMPLES, show_summary)
