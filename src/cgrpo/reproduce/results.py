"""What a finished training leaves for tables: a small file, named by content, that can be committed."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from cgrpo import __version__
from cgrpo.errors import UserError
from cgrpo.evaluation.scores import read_scores
from cgrpo.files import write_text
from cgrpo.reproduce.runs import Job

DECIDES = ("algorithm", "training", "toybox/assets")
DIGITS = 5


@cache
def code_mark() -> str:
    """A hash of the code and checkpoints that decide numbers: algorithm/, training/ and the toy world's assets."""
    root = Path(str(resources.files("cgrpo")))
    whole = hashlib.sha256()
    for folder in DECIDES:
        for path in sorted(path for path in (root / folder).rglob("*") if path.suffix in (".py", ".safetensors")):
            whole.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()[:16]


class Results:
    """Finished trainings in ``folder``, and those in other folders that are only read."""

    def __init__(self, folder: Path, *also: Path):
        self.folder, self.also = folder, also

    def find(self, key: str) -> dict[str, Any] | None:
        """A finished training's result; None where there is none. Raises UserError for a file that can't be read."""
        for folder in (self.folder, *self.also):
            file = folder / f"{key}.json"
            try:
                return json.loads(file.read_text(encoding="utf-8"))
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                raise UserError(f"result {file}: {error}; delete it to train that run again") from error
        return None

    def keep(self, job: Job, run: Path) -> dict[str, Any]:
        """The result of a finished run directory, written whole or not at all. Raises OSError."""
        result = result_of(job, run)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / f"{job.key}.json", json.dumps(result) + "\n")
        return result


def result_of(job: Job, run: Path) -> dict[str, Any]:
    """Configuration, seconds, and by metric the base's and the trained policy's mean score on each subject."""
    summary = json.loads((run / "summary.json").read_text())
    cfg = job.config
    return {
        "key": job.key,
        "label": job.label,
        "seed": job.seed,
        "title": cfg.title(),
        "config": cfg.model_dump(mode="json"),
        "iterations": summary["iterations"],
        "seconds": summary["seconds"]["training"],
        "device": _device(),
        "version": __version__,
        "code": code_mark(),
        "metrics": _by_subject(run, summary["metrics"]),
    }


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def _by_subject(run: Path, metrics: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for row in read_scores(run):
        if row.score is not None:
            found.setdefault(row.metric, {}).setdefault(row.method, {}).setdefault(row.subject, []).append(row.score)
    table = {}
    for name, arms in found.items():
        subjects = [subject for subject in arms["base"] if subject in arms["trained"]]
        means = {arm: [round(sum(arms[arm][s]) / len(arms[arm][s]), DIGITS) for s in subjects] for arm in arms}
        table[name] = {"role": metrics[name]["role"], "axis": metrics[name]["axis"], **means}
    return table
