"""What is the same on the device: a run and its repetition, a resumed run, a guarded one; and how far the CPU lies off.

The guard's scorer and a watched reward both draw from the device's random state, so a guard that disturbed it would
show. Whether a repetition is equal says whether the device's kernels are deterministic at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from cgrpo.app.run import train
from cgrpo.config import load_config, override
from cgrpo.types import Batch
from stages.harness import Row, device, stage

SETTINGS = [
    "training.prompts_per_iteration=2",
    "training.checkpoint_every=1",
    "training.schedule=constant",  # a falling rate would make a longer run another one
    "evaluation.enabled=false",
    "guard.every=0",
    "guard.tasks=4",
    "logging.tracker=none",
    "rewards.drawn.type=stages.exact:drawn",
]
GUARDED = ["guard.every=1", "guard.scorers.also_drawn.type=stages.exact:drawn"]


def drawn(images_NHWC: Tensor, batch: Batch) -> Tensor:
    """A reward by chance, from the device's own random state."""
    return torch.rand(len(images_NHWC), device=device()).cpu()


def figures(tiny: bool) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small = ["training.group_size=4", "sampling.steps=4"] if tiny else []
        first, again = (run(folder / name, 3, *small) for name in ("first", "again"))
        guarded = run(folder / "guarded", 3, *small, *GUARDED)
        run(folder / "resumed", 2, *small)
        resumed = run(folder / "resumed", 3, *small, resume=folder / "resumed")
        yield {"figure": "repeated run", **difference(first, again)}
        yield {"figure": "resumed run", **difference(first, resumed)}
        yield {"figure": "guarded run", **difference(first, guarded)}
        if not tiny:
            code = f"from pathlib import Path; from stages.exact import run; run(Path({name!r}) / 'cpu', 3)"
            subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
            yield {"figure": "the CPU's run", **difference(first, folder / "cpu")}


def run(folder: Path, iterations: int, *settings: str, resume: Path | None = None) -> Path:
    cfg = override(load_config("toybox"), [*SETTINGS, *settings, f"training.iterations={iterations}"])
    return train(cfg, None if resume else folder, resume=resume)


def difference(one: Path, other: Path) -> Row:
    """Of two runs' adapters and logged random rewards."""
    a, b = (load_file(next((folder / "adapter").glob("*.safetensors"))) for folder in (one, other))
    largest = max(float((a[key] - b[key]).abs().max()) for key in a)
    rows = [
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()] for folder in (one, other)
    ]
    drawn_alike = all(x["reward/drawn/mean"] == y["reward/drawn/mean"] for x, y in zip(*rows, strict=True))
    return {
        "largest_difference": largest,
        "largest_entry": max(float(value.abs().max()) for value in a.values()),
        "random_rewards_alike": drawn_alike,
    }


def chance_rewards(folder: Path) -> list[float]:
    """The logged means of the reward that is drawn."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["reward/drawn/mean"] for line in lines]


if __name__ == "__main__":
    stage("exact", figures)
