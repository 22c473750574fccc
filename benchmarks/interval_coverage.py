"""How often do the package's intervals cover the truth? Simulated paired differences.

python benchmarks/interval_coverage.py [--draws 600]

Prints the share of draws in which the nominal 95 % interval covers the true mean difference.

The comparison's, 30 subjects x 25 prompts, for three structures of the differences (standard deviations between
subjects, between prompts, and of the rest): Student's over the subjects' means, which is the headline, and Student's
over the pairs, which speaks of the items at hand only.

The tables', 2 to 5 training seeds x 48 subjects, for three standard deviations between seeds (those between subjects
and of the rest as the tables' runs have them): over seeds and subjects together; beside it Student's over the subjects
of the seeds' mean, as if there were no other training; and the mean width of the former.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from cgrpo.evaluation.statistics.paired import Paired, TwoLevel, paired_difference, two_level

SUBJECTS, PROMPTS, TRUTH = 30, 25, 0.02
STRUCTURES = {"none": (0.0, 0.0, 0.05), "mild": (0.01, 0.005, 0.05), "strong": (0.03, 0.01, 0.05)}
SEEDS, TABLE_SUBJECTS, SUBJECT, REST = (2, 3, 5), 48, 0.045, 0.025
BETWEEN_SEEDS = (0.0, 0.008, 0.03)


def covered(interval: Paired | TwoLevel) -> bool:
    return interval.low <= TRUTH <= interval.high


def comparison(draws: int, rng: np.random.Generator) -> None:
    subject_N = torch.arange(SUBJECTS).repeat_interleave(PROMPTS)
    items_N = torch.arange(SUBJECTS * PROMPTS)
    base_N = torch.zeros(SUBJECTS * PROMPTS, dtype=torch.float64)
    print(f"{'effects':8s} {'subjects':>9s} {'items':>9s}")
    for name, (subject, prompt, rest) in STRUCTURES.items():
        hits = np.zeros(2)
        for _ in range(draws):
            gap_SP = TRUTH + rng.normal(0, subject, (SUBJECTS, 1)) + rng.normal(0, prompt, (1, PROMPTS))
            gap_N = torch.from_numpy((gap_SP + rng.normal(0, rest, (SUBJECTS, PROMPTS))).reshape(-1))
            hits += [covered(paired_difference(base_N, gap_N, cluster_N)) for cluster_N in (subject_N, items_N)]
        print(f"{name:8s} {hits[0] / draws:9.3f} {hits[1] / draws:9.3f}")


def tables(draws: int, rng: np.random.Generator) -> None:
    print(f"\n{'seeds':>5s} {'between':>8s} {'together':>9s} {'subjects':>9s} {'width':>7s}")
    for seeds in SEEDS:
        for between in BETWEEN_SEEDS:
            found = np.zeros(3)
            for _ in range(draws):
                gap_SJ = TRUTH + rng.normal(0, between, (seeds, 1)) + rng.normal(0, SUBJECT, (1, TABLE_SUBJECTS))
                gap_SJ = torch.from_numpy(gap_SJ + rng.normal(0, REST, (seeds, TABLE_SUBJECTS)))
                both, alone = two_level(gap_SJ), two_level(gap_SJ.mean(0, keepdim=True))
                found += covered(both), covered(alone), both.high - both.low
            print(f"{seeds:5d} {between:8.3f} {found[0] / draws:9.3f} {found[1] / draws:9.3f} {found[2] / draws:7.3f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--draws", type=int, default=600)
    draws = parser.parse_args().draws
    rng = np.random.default_rng(0)
    print(f"{draws} draws; binomial standard deviation at 0.95: {(0.95 * 0.05 / draws) ** 0.5:.3f}")
    comparison(draws, rng)
    tables(draws, rng)


if __name__ == "__main__":
    main()
