"""What a finished training leaves for tables: a small file, named by content, that can be committed."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import math
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cgrpo import __version__
from cgrpo.config import METHODS, parse_run
from cgrpo.errors import UserError
from cgrpo.files import json_text, write_text
from cgrpo.reproduce.runs import Job, content_key
from cgrpo.scores import ScoreRow, read_scores
from cgrpo.section import TOYBOX, TOYBOX_POLICIES
from cgrpo.text import parse_json, read_text
from cgrpo.training.record import Record

DECIDES = ("algorithm", "training", "toybox/assets")
DECIDES_NOTHING = {"__init__", "checkpoint", "checks", "record", "runtime", "timer"}  # they keep, watch and hand on
DIGITS = 5
COPIES = "copies"  # the measure of evaluation.copies


@cache
def code_mark(method: str) -> str:
    """A hash of what decides a method's numbers: the code of algorithm/ and training/ without its comments and without
    the files of other methods, and the toy world's checkpoints but for the bases of worlds of their own."""
    root = Path(str(resources.files("cgrpo")))
    worlds_own = set(TOYBOX_POLICIES.values()) - {TOYBOX_POLICIES[TOYBOX]}
    whole = hashlib.sha256()
    for path in sorted(path for folder in DECIDES for path in (root / folder).rglob("*")):
        name = path.relative_to(root).as_posix().encode()
        if path.suffix == ".py" and path.stem not in DECIDES_NOTHING | (METHODS.keys() - {method}):
            whole.update(name + b"\0" + without_words(path.read_text(encoding="utf-8")).encode())
        elif path.suffix == ".safetensors" and path.parent.name not in worlds_own:
            whole.update(name + b"\0" + path.read_bytes())
    return whole.hexdigest()[:16]


def without_words(code: str) -> str:
    """``code`` without comments, docstrings and empty lines; its text, as each Python tells another syntax tree."""
    lines = code.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type == tokenize.COMMENT:
            lines[token.start[0] - 1] = lines[token.start[0] - 1][: token.start[1]]
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            words = node.body[0]
            lines[words.lineno - 1 : words.end_lineno] = [""] * len(lines[words.lineno - 1 : words.end_lineno])
    return "\n".join(line.rstrip() for line in lines if line.strip())


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
    """What of a result is read again."""

    model_config = ConfigDict(strict=True)

    seed: int
    config: dict[str, Any]
    iterations: int
    seconds: float
    device: str
    code: str
    metrics: Annotated[dict[str, Measured], Field(min_length=1)]


def _read(file: Path) -> dict[str, Any]:
    """A result, its configuration as this version reads it. Raises UserError for a file that is none, or cut off."""
    try:
        table = parse_json(read_text(file))
        Finished.model_validate(table)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        reason = f"{place + ': ' if place else ''}{first['msg']}"
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    else:
        return table | {"config": parse_run(table["config"], f"result {file}").model_dump(mode="json")}
    raise UserError(f"result {file}: {reason}; delete it to train that run again")


class Results:
    """Finished trainings in ``folder``, and those in other folders that are only read.

    A result is found by the content of its configuration as this version reads it: a setting that the package has
    gained since stands at its default there, which is what the training had.
    """

    def __init__(self, folder: Path, *also: Path):
        self.folder, self.also = folder, also
        self._older: dict[str, Path] | None = None

    def find(self, key: str) -> dict[str, Any] | None:
        """A finished training's result; None where there is none. Raises UserError for a file that can't be read."""
        for folder in (self.folder, *self.also):
            if (file := folder / f"{key}.json").exists():
                return _own(file, key)
        if self._older is None:
            self._older = dict(self._renamed())
        return _read(self._older[key]) if key in self._older else None

    def check(self) -> None:
        """Raises UserError for a folder to be read that holds no result: all would be trained again."""
        for folder in self.also:
            if not any(map(_is_result, folder.glob("*.json"))):
                deeper = folder / "results"
                place = deeper if deeper.is_dir() else "the folder results/ of an earlier --out"
                raise UserError(f"--results {folder}: no finished training is there; give {place}")

    def _renamed(self) -> Iterator[tuple[str, Path]]:
        """Results whose file's name is not what their configuration is called now, by that."""
        for folder in (*reversed(self.also), self.folder):
            for file in sorted(folder.glob("*.json")):
                try:
                    key = _key(_read(file))
                except UserError:  # no result, or of settings that this version has not: nothing asks for it
                    continue
                if key != file.stem:
                    yield key, file

    def keep(self, job: Job, run: Path) -> dict[str, Any]:
        """The result of a finished run directory, written whole or not at all. Raises OSError."""
        result = result_of(job, run)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / f"{job.key}.json", json_text(result) + "\n")
        return result


def _own(file: Path, key: str) -> dict[str, Any]:
    """The result that its name says. Raises UserError for another's, copied there perhaps."""
    result = _read(file)
    if _key(result) != key or result["seed"] != result["config"]["training"]["seed"]:
        raise UserError(f"result {file}: is of another training than its name says; delete it to train that run again")
    return result


def _key(result: dict[str, Any]) -> str:
    return content_key(parse_run(result["config"], "result"))


def _is_result(file: Path) -> bool:
    try:
        return bool(_read(file))
    except UserError:
        return False


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
        "code": code_mark(cfg.method),
        "metrics": _by_subject(run, summary["metrics"]),
    } | _checks(run)


def _device(run: Path) -> str:
    """Where it was trained, a cluster's node perhaps; this machine's where an earlier version's run does not say."""
    told = json.loads((run / "environment.json").read_text()).get("device")
    return told or (torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu")


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
    found: dict[str, dict[str, list[float]]] = {"base": {}, "trained": {}}
    for row in rows:
        found[row.method].setdefault(row.subject, []).extend([] if row.score is None else [row.score])
    return {arm: [_mean(found[arm].get(subject, ())) for subject in found["base"]] for arm in found}


def _checks(run: Path) -> dict[str, Any]:
    """What the guard's checks found while training, by metric: the base's mean, then one a check; none: nothing."""
    checks = Record(run).checks()
    if not checks:
        return {}
    means = {
        name: [
            round(mean, DIGITS) for mean in (metric["base"], *(check["metrics"][name]["trained"] for check in checks))
        ]
        for name, metric in checks[0]["metrics"].items()
    }
    return {"checks": {"iterations": [0, *(check["iteration"] for check in checks)], "metrics": means}}


def _mean(scores: Sequence[float]) -> float:
    return round(sum(scores) / len(scores), DIGITS) if scores else math.nan
