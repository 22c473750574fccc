"""Adapters of the toy world on held-out subjects that no choice has seen: a training's seeds together.

    python benchmarks/unseen.py ADAPTER... [--first 48] [--subjects 48] [--split test] > row.json

An ADAPTER is one training's, a seed each. The commands and sweeps evaluate the split's first 32 or 48 subjects; whoever
has looked at those while choosing a setting should be judged on others. Prints each metric's change against the base,
with the 95 % interval over seeds and subjects together (over subjects where there is one seed), and by subject.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from sweep import Evaluation

from cgrpo.build import make_policy
from cgrpo.config import load_config
from cgrpo.evaluation.metrics import make_scorers
from cgrpo.evaluation.statistics.paired import two_level
from cgrpo.rewards import make_rewards
from cgrpo.toybox.judges import make_judges


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapters", nargs="+", type=Path)
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--first", type=int, default=48, help="the first subject, from 0 on")
    parser.add_argument("--subjects", type=int, default=48)
    given = parser.parse_args()
    cfg, device = load_config(), torch.device("cuda" if torch.cuda.is_available() else "cpu")
    scorers = make_scorers(make_rewards(cfg.rewards, device), make_judges())
    base, found = {}, []
    for adapter in given.adapters:
        evaluate = Evaluation(cfg, make_policy(cfg, device, adapter), scorers, given.subjects, given.first)
        evaluate.base = base or evaluate.base
        found.append(evaluate(given.split))
        base = evaluate.base
    metrics = {}
    for name in scorers:
        gaps = [seed[name]["by_subject"] for seed in found]
        whole = two_level(torch.tensor(gaps, dtype=torch.float64))
        change = {"difference": whole.mean, "low": whole.low, "high": whole.high}
        metrics[name] = {key: round(value, 4) for key, value in change.items()} | {"by_subject": gaps}
    where = {"split": given.split, "first": given.first, "subjects": given.subjects, "seeds": len(found)}
    print(json.dumps(where | {"metrics": metrics}))


if __name__ == "__main__":
    main()
