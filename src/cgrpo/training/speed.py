"""How fast a run was, in one file that runs of other programs can be set against."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from cgrpo.config import Config, GroupConfig

ENOUGH = 20  # iterations whose median is worth comparing
PHASES = ("encode", "sample", "reward", "update")


def speed(
    cfg: Config, rows: Sequence[Mapping[str, Any]], environment: Mapping[str, Any], processes: int
) -> dict[str, Any] | None:
    """Median seconds of an iteration, samples per GPU-hour with and without rewards, and what they were measured on.

    rows          the iterations' metrics; each process's first one warms up and is left out
    environment   content of the run's environment.json
    processes     GPUs, or processes on a CPU; all counts are over all of them

    None before there are two rows. "comparable" says whether there are at least 20 iterations: their spread is given as
    quartiles. A phase that a method lacks is left out. The guard and checkpoints count in no phase.
    """
    rows = [row for row in rows[1:] if row.get("seconds/total") is not None]
    if not rows:
        return None
    totals = [row["seconds/total"] for row in rows]
    median = statistics.median(totals)
    unscored = statistics.median(row["seconds/total"] - (row.get("seconds/reward") or 0) for row in rows)
    phases = {name: [row[f"seconds/{name}"] for row in rows if f"seconds/{name}" in row] for name in PHASES}
    samples, peaks = cfg.share()[0], [row["memory/peak_gib"] for row in rows if row.get("memory/peak_gib")]
    if isinstance(cfg, GroupConfig):
        samples *= cfg.training.group_size
    quartiles = statistics.quantiles(totals, n=4) if len(totals) > 1 else [median] * 3
    return {
        "comparable": len(rows) >= ENOUGH,
        "iterations": len(rows),
        "seconds": {"median": median, "quartiles": [quartiles[0], quartiles[2]]},
        "seconds_by_phase": {name: statistics.median(seconds) for name, seconds in phases.items() if seconds},
        "samples_per_iteration": samples,
        "samples_per_gpu_hour": 3600 * samples / processes / median,
        "samples_per_gpu_hour_without_rewards": 3600 * samples / processes / unscored,
        "peak_gib": max(peaks, default=None),
        "gpus": processes,
        "environment": {key: value for key, value in environment.items() if key != "began"},
        "settings": cfg.model_dump(mode="json", include={"method", "policy", "sampling", "rewards", "training"}),
    }
