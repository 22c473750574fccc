"""The main job of the embedded world on the device: `cgrpo train`, seconds and gains."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from cgrpo.app.run import train
from cgrpo.config import load_config, override
from stages.harness import Row, stage

SMALL = [
    "training.iterations=2",
    "training.prompts_per_iteration=2",
    "training.group_size=4",
    "evaluation.subjects=2",
    "evaluation.prompts_per_subject=2",
    "guard.every=0",
]


def figures(tiny: bool) -> Iterator[Row]:
    cfg = override(load_config("toybox"), ["logging.tracker=none", *(SMALL if tiny else [])])
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        run = train(cfg, Path(folder) / "run")
        whole = time.perf_counter() - start
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        summary = json.loads((run / "summary.json").read_text())
    parts = {key: statistics.median(row[key] for row in rows) for key in rows[0] if key.startswith("seconds/")}
    kept = ("difference", "low", "high")
    yield {
        "figure": "toybox",
        "iterations": len(rows),
        "seconds": whole,
        **{key.replace("/", "_"): value for key, value in parts.items()},
        "change": {name: [metric[key] for key in kept] for name, metric in summary["metrics"].items()},
    }


if __name__ == "__main__":
    stage("toybox", figures)
