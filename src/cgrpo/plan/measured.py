"""What GPUs were measured to do: figures/GPU.jsonl, a json line a figure, made by ``benchmarks/gpu.sh``.

The model measured is FLUX.1-dev's transformer with UNO's LoRA of rank 512, one reference, 512 x 512; others reach a
similar share of the data sheet's rate where their products are as large.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

from cgrpo.config import Config, load_config
from cgrpo.plan.gpus import GPUS
from cgrpo.plan.policy import count_policy
from cgrpo.plan.work import Work

RECIPE = "uno-dinoseg-hpsv3"
ASSUMED = 0.4  # share of the data sheet's rate where nothing was measured

Row = dict[str, Any]


@cache
def figures(gpu: str) -> tuple[Row, ...]:
    """The lines of a GPU's file, in order; none where it was not measured."""
    file = resources.files("cgrpo.plan") / "figures" / f"{gpu}.jsonl"
    return tuple(json.loads(line) for line in file.read_text().splitlines()) if file.is_file() else ()


def measured_gpus() -> list[str]:
    """The GPUs with figures."""
    return [name for name in GPUS if figures(name)]


def rows(gpu: str, stage: str, figure: str) -> list[Row]:
    """A figure's lines, those without memory left out."""
    found = [row for row in figures(gpu) if row["stage"] == stage and row.get("figure") == figure]
    return [row for row in found if "out_of_memory" not in row]


def operations(row: Row) -> float:
    """Floating-point operations of a measured rollout or replay step, what checkpointing repeats included."""
    counted = count_policy(load_config(RECIPE).policy, 1).operations
    if row["figure"] == "rollout step":
        return row["batch"] * counted.forward
    return row["micro_batch"] * (counted.forward + counted.backward + counted.again[row["checkpointing"]])


def share(gpu: str, row: Row) -> float:
    """Of the data sheet's rate that a measured step reaches."""
    return operations(row) / row["seconds"] / (GPUS[gpu].tflops * 1e12)


def utilisation(gpu: str, cfg: Config, work: Work) -> float | None:
    """The share that an iteration reaches by what was measured on ``gpu``; None where nothing was.

    Sampling and training count at the shares of the largest measured batches that are no larger than the run's, under
    the same checkpointing; all else at ``ASSUMED``.
    """
    rollout = _nearest(rows(gpu, "flux", "rollout step"), "batch", work.sampling_batch)
    same = [row for row in rows(gpu, "flux", "replay step") if row["checkpointing"] == cfg.policy.checkpointing]
    replay = _nearest(same, "micro_batch", work.micro_batch)
    if rollout is None or replay is None:
        return None
    shares = {"sampling": share(gpu, rollout), "training": share(gpu, replay)}
    spent = sum(count / shares.get(part.split(",")[0], ASSUMED) for part, count in work.operations.items())
    return work.total / spent


def _nearest(found: list[Row], key: str, wanted: int) -> Row | None:
    """The row with the largest ``key`` up to ``wanted``, else the smallest."""
    below = [row for row in found if row[key] <= wanted]
    return max(below, key=lambda row: row[key]) if below else min(found, key=lambda row: row[key], default=None)
