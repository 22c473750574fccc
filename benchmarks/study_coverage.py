"""Do a study's report and its exclusion rule find what simulated raters prefer?

    python benchmarks/study_coverage.py [--draws 400]

200 items of 30 subjects, 8 raters, 3 an item, as ``cgrpo study create`` plans them, and 5 checks. A rater prefers the
second method by an effect plus the subject's, the item's and the answer's own noise; small differences are ties.
Careful raters fail a check with probability 2 %. Careless ones answer everything at random, and may pass the checks by
luck.

Printed, for three sizes of the subjects' effect and without or with one careless rater of eight (12.5 %): how often
the nominal 95 % intervals of the win rate cover that of careful raters: over items, on the same subjects drawn once;
over subjects, drawn anew each time. Then the mean win rate found with and without the rule, and the share of careful
raters that it excludes.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy import stats

from cgrpo.study.design import assign_raters
from cgrpo.study.gates import rules
from cgrpo.study.manifest import TIE
from cgrpo.study.statistics.comparisons import LOSS, WIN, Vote, shares

ITEMS, SUBJECTS, RATERS, PER_ITEM, CHECKS = 200, 30, 8, 3, 5
EFFECT, ITEM, NOISE, TIE_BELOW = 0.35, 0.6, 1.0, 0.35  # the answers' unit is their own noise
SLIP = 0.02


def win_rate(effect: np.ndarray, spread: float) -> float:
    """Mean win rate, ties half, of items whose differences are normal about ``effect`` with deviation ``spread``."""
    win = stats.norm.sf(TIE_BELOW, effect, spread)
    loss = stats.norm.cdf(-TIE_BELOW, effect, spread)
    return float(np.mean(win + (1 - win - loss) / 2))


def study(rng: np.random.Generator, subject_S: np.ndarray, careless: int) -> tuple[list[Vote], list[Vote], int]:
    """Votes that the rule keeps, all votes, and careful raters that it excludes."""
    rule = rules("pairwise", CHECKS, 0.75)
    failed = [rng.binomial(CHECKS, 2 / 3 if rater < careless else SLIP) for rater in range(RATERS)]
    out = {rater for rater, count in enumerate(failed) if count > rule.failed_at_most}
    votes = []
    for item, block in enumerate(assign_raters(ITEMS, RATERS, PER_ITEM, rng)):
        subject = item % SUBJECTS
        own = EFFECT + subject_S[subject] + rng.normal(0, ITEM)
        for rater in block:
            lean = own + rng.normal(0, NOISE)
            outcome = TIE if abs(lean) < TIE_BELOW else WIN if lean > 0 else LOSS
            if rater < careless:
                outcome = (WIN, TIE, LOSS)[rng.integers(3)]
            votes.append(Vote(rater, f"i{item}", f"s{subject}", "identity", "base", "ours", outcome, None))
    return [vote for vote in votes if vote.rater not in out], votes, len(out - set(range(careless)))


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--draws", type=int, default=400)
    draws = options.parse_args().draws
    failed = rules("pairwise", CHECKS, 0.75).failed_at_most
    print(f"{draws} draws a row; {CHECKS} checks, more than {failed} failed exclude")
    print("subjects careless  truth  items  subj.  found    all wrongly out")
    for spread in (0.0, 0.25, 0.5):
        for careless in (0, 1):
            row(spread, careless, draws)


def row(spread: float, careless: int, draws: int) -> None:
    rng = np.random.default_rng(0)
    fixed_S = rng.normal(0, spread, SUBJECTS)
    noise = (ITEM**2 + NOISE**2) ** 0.5
    here = win_rate(EFFECT + fixed_S[np.arange(ITEMS) % SUBJECTS], noise)
    anywhere = win_rate(np.array([EFFECT]), (noise**2 + spread**2) ** 0.5)
    hits = np.zeros(2)
    found, everyone, wrong = [], [], 0
    for _ in range(draws):
        kept, votes, out = study(rng, fixed_S, careless)
        one = shares(kept, "identity", "base", "ours")
        all_in = shares(votes, "identity", "base", "ours")
        anew, _, _ = study(rng, rng.normal(0, spread, SUBJECTS), careless)
        other = shares(anew, "identity", "base", "ours")
        assert one and all_in and other
        hits[0] += one.win_rate_items.low <= here <= one.win_rate_items.high
        hits[1] += other.win_rate_subjects.low <= anywhere <= other.win_rate_subjects.high
        found.append(one.win_rate)
        everyone.append(all_in.win_rate)
        wrong += out
    share = wrong / (draws * (RATERS - careless))
    print(
        f"{spread:8.2f} {careless:8d} {here:6.3f} {hits[0] / draws:6.3f} {hits[1] / draws:6.3f} {np.mean(found):6.3f} "
        f"{np.mean(everyone):6.3f} {share:11.4f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
