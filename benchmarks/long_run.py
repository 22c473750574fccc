"""Does a long run leak? A thousand small iterations: resident memory, files and step time over them.

    python benchmarks/long_run.py [--iterations 1000] [--recipe toybox] [--out DIR]

Prints, for each, the mean of the first and of the last fifth (the first 50 iterations left out), the least squares
slope per 1,000 iterations, and the slope's standard error, from residuals in blocks of 25 iterations, since neighbours
are alike.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from cgrpo.app.run import train
from cgrpo.config import load_config
from cgrpo.training.record import RunRecord

SMALL = [
    "training.prompts_per_iteration=1", "training.group_size=4", "training.micro_batch=8", "sampling.steps=3",
    "policy.rank=4", "logging.tracker=none", "evaluation.enabled=false", "guard.every=100", "guard.tasks=8",
    "training.checkpoint_every=20",
]  # fmt: skip
WARM, BLOCK = 50, 25


def resident() -> float:
    """MiB of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def slope(values: np.ndarray) -> tuple[float, float]:
    """Per 1,000 iterations, and its standard error."""
    blocks = values[: len(values) // BLOCK * BLOCK].reshape(-1, BLOCK).mean(1)
    at = (np.arange(len(blocks)) + 0.5) * BLOCK / 1000
    gradient, level = np.polyfit(at, blocks, 1)
    rest = blocks - (gradient * at + level)
    error = np.sqrt(rest @ rest / max(len(blocks) - 2, 1) / ((at - at.mean()) ** 2).sum())
    return float(gradient), float(error)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--recipe", default="toybox")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    out = (options.out or Path(tempfile.mkdtemp(prefix="long-"))) / "run"
    seen: list[tuple[int, float, int]] = []  # iterations done, MiB, files
    over = threading.Event()

    def watch() -> None:
        rows = out / "metrics.jsonl"
        while not over.wait(0.5):
            done = rows.read_bytes().count(b"\n") if rows.exists() else 0
            seen.append((done, resident(), sum(1 for _ in out.rglob("*"))))

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.monotonic()
    try:
        train(load_config(options.recipe, [*SMALL, f"training.iterations={options.iterations}"]), out)
    finally:
        over.set()
        watcher.join()
    steps = np.array([row["seconds/total"] for row in RunRecord(out).rows()])[WARM:]
    at = np.arange(WARM, options.iterations)
    done, memory, files = (np.array(column, dtype=float) for column in zip(*seen, strict=True))
    tables = {"seconds an iteration": steps, "MiB resident": np.interp(at, done, memory)}
    tables["files in the run"] = np.interp(at, done, files)
    print(f"{options.iterations} iterations of {options.recipe} in {time.monotonic() - began:.0f} s")
    for name, values in tables.items():
        fifth = max(1, len(values) // 5)
        gradient, error = slope(values)
        ends = f"{values[:fifth].mean():10.3f} {values[-fifth:].mean():10.3f}"
        print(f"{name:22s} {ends}   {gradient:+.3f} +- {error:.3f} per 1,000")


if __name__ == "__main__":
    main()
