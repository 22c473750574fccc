"""The run directory: what a run leaves behind, each file written whole or not at all."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from cgrpo import __version__
from cgrpo.config import Config, parse_config
from cgrpo.errors import UserError
from cgrpo.files import json_text, read_table, reading, write_text, writing
from cgrpo.fingerprint import of_file
from cgrpo.text import read_text
from cgrpo.training.speed import speed


class RunRecord:
    """A run directory.

    config.json  environment.json  metrics.jsonl  samples/  adapter/  checkpoints/step-N/  summary.json  report.html
    speed.json  median seconds per iteration, samples per GPU-hour, and what they were measured on
    materials.json  what the run is made of, by content
    scores.jsonl  benchmark.json  comparison.png  where base and trained are compared
    pairs/  where preference pairs are made: pairs.jsonl and their pictures
    guard.jsonl  best/  where held-out tasks are watched
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.metrics_file = folder / "metrics.jsonl"
        self.guard_file = folder / "guard.jsonl"
        self.samples = folder / "samples"
        self.adapter = folder / "adapter"
        self.best = folder / "best"
        self.checkpoints = folder / "checkpoints"
        self.materials = folder / "materials.json"

    @classmethod
    def create(cls, folder: Path, config: Config) -> RunRecord:
        """A new run in a folder that holds none. Raises UserError if it can't be written or holds a run.

        A run that stopped before its first iteration ended, for want of a file perhaps, leaves nothing to keep.
        """
        record = cls(folder)
        if record.metrics_file.exists():
            raise UserError(f"{folder} already holds a run; continue it with --resume {folder}, or give another --out")
        with writing(folder):
            record.guard_file.unlink(missing_ok=True)
            for path in (folder, record.samples, record.checkpoints):
                path.mkdir(parents=True, exist_ok=True)
            write_text(folder / "environment.json", json_text(_environment(), indent=2) + "\n")
            record.write_config(config)
        return record

    @classmethod
    def open(cls, folder: Path) -> tuple[RunRecord, Config]:
        """An existing run and its configuration. Raises UserError if there is none."""
        record = cls(folder)
        return record, parse_config(record.settings(), str(folder / "config.json"))

    @property
    def id(self) -> str:
        """What tells this run from all others, for trackers. Raises UserError without its environment.json."""
        file = self.folder / "environment.json"
        with reading(file):
            return of_file(file)[:16]

    def settings(self) -> dict[str, Any]:
        """config.json as it stands. Raises UserError if there is none."""
        file = self.folder / "config.json"
        if not file.exists():
            raise UserError(f"{self.folder} is no run directory: it has no config.json")
        with reading(file, "restore it, or start a new run"):
            table = json.loads(read_text(file))
            if not isinstance(table, dict):
                raise ValueError("not a JSON object")
        return table

    def beginning(self) -> dict[str, str]:
        """What materials.json says of the run's beginning: its "folder" and "recipe", and fingerprints by input.

        Relative paths of the run's settings are looked up in that folder. {} without the file. Raises UserError.
        """
        return read_table(self.materials, "delete it if no input has changed") if self.materials.exists() else {}

    def write_config(self, config: Config) -> None:
        write_text(self.folder / "config.json", config.model_dump_json(indent=2) + "\n")

    def rows(self) -> list[dict[str, Any]]:
        """The metrics of the iterations so far. Lines that can't be read, such as one cut short by a kill, are left
        out."""
        return list(_lines(self.metrics_file))

    def checks(self) -> list[dict[str, Any]]:
        """The guard's checks so far; "iteration" is the number of iterations before each."""
        return list(_lines(self.guard_file))

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one iteration's metrics; NaN becomes null."""
        _append(self.metrics_file, row)

    def write_check(self, row: Mapping[str, Any]) -> None:
        """Append one check of the guard; NaN becomes null."""
        _append(self.guard_file, row)

    def rewind(self, iterations: int) -> int:
        """Forget metrics from iteration ``iterations`` on, and checks after it: they will be made again.

        Returns how many of the iterations before have no metrics, because their lines are lost or can't be read.
        """
        rows = [row for row in self.rows() if row["iteration"] < iterations]
        _keep(self.metrics_file, rows)
        if self.guard_file.exists():
            _keep(self.guard_file, [row for row in self.checks() if row["iteration"] <= iterations])
        return iterations - len(rows)

    def write_speed(self, config: Config, processes: int) -> None:
        """speed.json, from the metrics so far; nothing where there are too few."""
        file = self.folder / "environment.json"
        with reading(file):
            environment = json.loads(read_text(file))
        if found := speed(config, self.rows(), environment, processes):
            write_text(self.folder / "speed.json", json_text(found, indent=2) + "\n")

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        write_text(self.folder / "summary.json", json_text(summary, indent=2) + "\n")


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    """The rows of ``file``, each with its iteration."""
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("iteration"), int):
            yield row


def _append(file: Path, row: Mapping[str, Any]) -> None:
    with file.open("a", encoding="utf-8") as opened:
        opened.write(json_text(row) + "\n")


def _keep(file: Path, rows: list[dict[str, Any]]) -> None:
    write_text(file, "".join(json_text(row) + "\n" for row in rows))


def _environment() -> dict[str, Any]:
    import torch  # not for whoever only reads a run

    packages = ("torch", "diffusers", "transformers", "peft", "accelerate", "numpy", "pillow", "safetensors")
    return {
        "cgrpo": __version__,
        "began": datetime.now(UTC).isoformat(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        **{name: metadata.version(name) for name in packages},
    }
