"""What a finished training leaves for tables: a small file, named by content, that can be committed."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cgrpo import __version__
from cgrpo.config import parse_config
from cgrpo.errors import UserError
from cgrpo.files import json_text, reading, write_text
from cgrpo.reproduce.runs import Job, content_key
from cgrpo.scores import ScoreRow, read_scores
from cgrpo.section import first_fault
from cgrpo.text import parse_json, read_text
from cgrpo.training.record import RunRecord

DIGITS = 5
COPIES = "copies"  # the measure of evaluation.copies
BOTH_RIGHT = "both_right"  # the pair world's judge of whole pictures


class Measured(BaseModel):
    """A metric's mean score on each subject; None where a subject has none, so that all lists are of one length."""

    model_config = ConfigDict(strict=True)

    role: str
    axis: str
    base: list[float | None]
    trained: list[float | None]

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if len(self.base) != len(self.trained):
            raise ValueError(f"{len(self.base)} subjects of the base and {len(self.trained)} of the trained policy")
        return self


class Finished(BaseModel):
    """The parts of a result that are read again."""

    model_config = ConfigDict(strict=True)

    seed: int
    config: dict[str, Any]
    iterations: int
    seconds: float
    device: str
    version: str
    metrics: Annotated[dict[str, Measured], Field(min_length=1)]


def _read(file: Path) -> dict[str, Any]:
    """A result, its configuration as this version reads it. Raises UserError for a file that is none, or cut off."""
    with reading(file, "delete it to train that run again"):
        table = parse_json(read_text(file))
        try:
            Finished.model_validate(table)
        except ValidationError as error:
            raise ValueError(first_fault(error)) from None
    return table | {"config": parse_config(table["config"], f"result {file}").model_dump(mode="json")}


class Results:
    """Finished trainings in ``folder``, and those in other folders that are only read.

    A result is found by its configuration as this version reads it, whatever its file is called. So a setting that the
    package has gained since stands at its default, which is what the training had.
    """

    def __init__(self, folder: Path, *also: Path):
        self.folder, self.also = folder, also
        self._broken: dict[str, UserError] = {}

    @cached_property
    def _by_key(self) -> dict[str, dict[str, Any]]:
        """Results by their keys; the first folder's count first."""
        by_key = {}
        for folder in (*reversed(self.also), self.folder):
            for file in sorted(folder.glob("*.json")):
                try:
                    result = _read(file)
                    by_key[content_key(parse_config(result["config"], "result"))] = result
                except UserError as error:  # not a result, or one with settings that this version has not
                    self._broken[file.stem] = error
        return by_key

    def find(self, key: str) -> dict[str, Any] | None:
        """A finished training's result; None where there is none. Raises UserError if its file can't be read."""
        result = self._by_key.get(key)
        if result is None and key in self._broken:
            raise self._broken[key]
        return result

    def check(self) -> None:
        """Raises UserError for a folder to be read that holds no result: all would be trained again."""
        for folder in self.also:
            if not Results(folder)._by_key:
                deeper = folder / "results"
                place = deeper if deeper.is_dir() else "the folder results/ of an earlier --out"
                raise UserError(f"--results {folder}: no finished training is there; give {place}")

    def keep(self, job: Job, run: Path) -> dict[str, Any]:
        """The result of a finished run directory, written whole or not at all. Raises OSError."""
        result = result_of(job, run)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / f"{job.key}.json", json_text(result) + "\n")
        self._by_key[job.key] = result
        return result


def result_of(job: Job, run: Path) -> dict[str, Any]:
    """Configuration, seconds, and by metric the base's and the trained policy's mean score on each subject, NaN for
    one without any score: all seeds have the same subjects."""
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
        "device": _device(run),
        "version": __version__,
        "metrics": _by_subject(run, summary["metrics"]),
    } | _checks(run)


def _device(run: Path) -> str:
    """Where it was trained, a cluster's node perhaps; this machine's where an earlier version's run does not say."""
    device = json.loads((run / "environment.json").read_text()).get("device")
    return device or (torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu")


def _by_subject(run: Path, metrics: dict[str, Any]) -> dict[str, Any]:
    rows = read_scores(run)
    copied = {(row.subject, row.prompt_index) for row in rows if row.metric == COPIES and row.score}
    table = {}
    for name, metric in metrics.items():
        own = [row for row in rows if row.metric == name]
        table[name] = {"role": metric["role"], "axis": metric["axis"], **_means(own)}
        if copied and metric["role"] == "judge":
            others = [row if (row.subject, row.prompt_index) not in copied else replace(row, score=None) for row in own]
            table[f"{name}, no copies"] = {"role": "guard", "axis": metric["axis"], **_means(others)}
    return table


def _means(rows: Sequence[ScoreRow]) -> dict[str, list[float]]:
    """Each arm's mean score on each subject, NaN where it has none."""
    scores: dict[str, dict[str, list[float]]] = {"base": {}, "trained": {}}
    for row in rows:
        scores[row.method].setdefault(row.subject, []).extend([] if row.score is None else [row.score])
    return {arm: [_mean(of_arm.get(subject, ())) for subject in scores["base"]] for arm, of_arm in scores.items()}


def _checks(run: Path) -> dict[str, Any]:
    """What the guard's checks found while training, by metric: the base's mean, then one a check; none: nothing."""
    checks = RunRecord(run).checks()
    if not checks:
        return {}
    means = {}
    for name, metric in checks[0]["metrics"].items():
        by_check = (metric["base"], *(check["metrics"][name]["trained"] for check in checks))
        means[name] = [round(mean, DIGITS) for mean in by_check]
    return {"checks": {"iterations": [0, *(check["iteration"] for check in checks)], "metrics": means}}


def _mean(scores: Sequence[float]) -> float:
    return round(sum(scores) / len(scores), DIGITS) if scores else math.nan
