"""The line between two adapters of the toy world, evaluated beside its ends: does mixing do what training would?

    python benchmarks/blend_line.py IDENTITY PROMPT --shares 0 0.25 0.5 0.75 1 [--split test] [--subjects 32]

IDENTITY and PROMPT are run directories or adapters; a share is PROMPT's. A JSON line for each share: every metric's
change against the base with its 95 % interval.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch
from sweep import Evaluation

from cgrpo.app.adapter import blend_runs
from cgrpo.build import make_policy
from cgrpo.config import load_config
from cgrpo.evaluation.metrics import make_scorers
from cgrpo.rewards import make_rewards
from cgrpo.toybox.judges import make_judges


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("identity", type=Path)
    parser.add_argument("prompt", type=Path)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.25, 0.5, 0.75, 1.0])
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    parser.add_argument("--subjects", type=int, default=32)
    given = parser.parse_args()
    cfg = load_config()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    scorers = make_scorers(make_rewards(cfg.rewards, device), make_judges())
    base = None
    for share in given.shares:
        with tempfile.TemporaryDirectory() as scratch:
            mixed = blend_runs(given.identity, [(given.prompt, share)], Path(scratch))
            evaluate = Evaluation(cfg, make_policy(cfg, device, mixed), scorers, given.subjects)
        evaluate.base = base or evaluate.base
        print(json.dumps({"share": share, given.split: evaluate(given.split)}), flush=True)
        base = evaluate.base


if __name__ == "__main__":
    main()
