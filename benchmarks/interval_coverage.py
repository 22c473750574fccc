"""How often do the comparison's intervals cover the truth? Simulated DreamBench scores, 30 subjects x 25 prompts.

python benchmarks/interval_coverage.py [--draws 600]

Prints, for three structures of the paired differences (standard deviations between subjects, between prompts, and of
the rest), the share of draws in which the nominal 95 % interval covers the true mean difference: Student's over the
subjects' means, which is the headline, and Student's over the pairs, which speaks of the items at hand only.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from cgrpo.evaluation.statistics.paired import Paired, paired_difference

SUBJECTS, PROMPTS, TRUTH = 30, 25, 0.02
STRUCTURES = {"none": (0.0, 0.0, 0.05), "mild": (0.01, 0.005, 0.05), "strong": (0.03, 0.01, 0.05)}


def covered(interval: Paired) -> bool:
    return interval.low <= TRUTH <= interval.high


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--draws", type=int, default=600)
    draws = parser.parse_args().draws
    rng = np.random.default_rng(0)
    subject_N = torch.arange(SUBJECTS).repeat_interleave(PROMPTS)
    items_N = torch.arange(SUBJECTS * PROMPTS)
    base_N = torch.zeros(SUBJECTS * PROMPTS, dtype=torch.float64)
    print(f"{draws} draws; binomial standard deviation at 0.95: {(0.95 * 0.05 / draws) ** 0.5:.3f}")
    print(f"{'effects':8s} {'subjects':>9s} {'items':>9s}")
    for name, (subject, prompt, rest) in STRUCTURES.items():
        hits = np.zeros(2)
        for _ in range(draws):
            gap_SP = TRUTH + rng.normal(0, subject, (SUBJECTS, 1)) + rng.normal(0, prompt, (1, PROMPTS))
            gap_N = torch.from_numpy((gap_SP + rng.normal(0, rest, (SUBJECTS, PROMPTS))).reshape(-1))
            hits += [covered(paired_difference(base_N, gap_N, cluster_N)) for cluster_N in (subject_N, items_N)]
        print(f"{name:8s} {hits[0] / draws:9.3f} {hits[1] / draws:9.3f}")


if __name__ == "__main__":
    main()
