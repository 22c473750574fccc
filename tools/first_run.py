"""Keeps of a finished `cgrpo train` what the README and docs/start/first-run.md say of one, in results/first-run.

python tools/first_run.py RUN --name cpu --wall SECONDS
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from cgrpo.config import parse_config
from cgrpo.files import json_text
from cgrpo.reproduce.results import result_of
from cgrpo.reproduce.runs import Job, content_key

HEALTH = ("reward/identity/std", "reward/prompt/std", "conflict_share", "reward_correlation", "ratio_drift",
          "ratio_spread", "clip_share", "gradient_norm", "bonus_shift")  # fmt: skip
DIGITS = 4  # that count


def kept(run: Path, wall: float | None) -> dict[str, object]:
    """The run's result, its seconds from the command to the report, and what an iteration says of a run's health."""
    cfg = parse_config(_read(run / "config.json"), str(run))
    made = Job(content_key(cfg), f"cgrpo train, seed {cfg.training.seed}", "toybox", (), cfg.training.seed, cfg)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    health = {key: [float(f"{row[key]:.{DIGITS}g}") for row in rows] for key in HEALTH}
    result = result_of(made, run)
    del result["config"]  # the default recipe's, which ``key`` names
    cpus = _read(run / "environment.json")["cpus"]
    return {**result, "wall_seconds": wall, "cpus": cpus, "health": health}


def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8"))


if __name__ == "__main__":
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("run", type=Path)
    asked.add_argument("--name", required=True)
    asked.add_argument("--wall", type=float, default=None)
    options = asked.parse_args()
    folder = Path(__file__).parents[1] / "results" / "first-run"
    folder.mkdir(exist_ok=True)
    (folder / f"{options.name}.json").write_text(json_text(kept(options.run, options.wall)) + "\n", encoding="utf-8")
