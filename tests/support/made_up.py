"""Results as trainings leave them, without any training."""

from __future__ import annotations

from cgrpo import __version__
from cgrpo.reproduce import Job


def fake(job: Job, gain: float, version: str = __version__) -> dict:
    arms = {"base": [0.5, 0.6, 0.4], "trained": [0.5 + gain, 0.6 + gain, 0.401 + gain]}
    metrics = {axis: {"role": "judge", "axis": axis, **arms} for axis in ("identity", "prompt")}
    metrics |= {name: {"role": "guard", "axis": "identity", **arms} for name in ("copies", "both_right")}
    return {
        "key": job.key,
        "label": job.label,
        "seed": job.seed,
        "title": "",
        "config": job.config.model_dump(mode="json"),
        "iterations": 80,
        "seconds": 10.0,
        "device": "cpu",
        "version": version,
        "metrics": metrics,
        "checks": {"iterations": [0, 20], "metrics": {"copies": [0.2, 0.1]}},
    }
