"""The paper's iteration measured whole: G = 12, T = 25, 60 % trained, at the fastest way to replay that fits."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from real_size import read

from cgrpo.policies.settings import Checkpointing
from stages.flux import iteration
from stages.harness import Row, cuda, stage
from stages.model import build

OPTIMIZER_GIB = 8  # of the adapter's two moments, which a replay step alone does not hold


def figures(tiny: bool) -> Iterator[Row]:
    mode, micro = fastest(read(Path(sys.argv[1])))
    yield from iteration(build(tiny), tiny, mode, micro)


def fastest(rows: list[Row]) -> tuple[Checkpointing, int]:
    """Checkpointing and micro-batch with the fewest seconds a pair among those that leave room for the optimizer."""
    room = max((row.get("memory_gib", 0) for row in rows), default=0) if cuda() else float("inf")
    fit = [
        row
        for row in rows
        if row["stage"] == "flux"
        and row.get("figure") == "replay step"
        and "seconds" in row
        and row.get("peak_gib", 0) + OPTIMIZER_GIB < 0.95 * room
    ]
    best = min(fit, key=lambda row: row["seconds"] / row["micro_batch"], default=None)
    return (best["checkpointing"], best["micro_batch"]) if best else ("full", 1)


if __name__ == "__main__":
    stage("whole", figures)
