"""How often is a study's report sure of a winner, rightly and wrongly, and do its intervals cover the truth?

    python benchmarks/study_coverage.py [--draws 500]

First: the share of simulated studies whose verdict is sure. 2 to 30 subjects, 1 or 10 items each, 1 or 8 raters, each
of whom answers every item. The columns say who prefers what:

coin       answers are coin flips
subjects   each subject has a preference of its own, normal with deviation 1 (the unit is the answers' noise)
all or no  each subject is always won or always lost, by a coin flip
opinions   each rater has an own preference for each subject, normal with deviation 1
leans      each rater leans to one method, on all subjects alike, normal with deviation 0.5: "these" counts verdicts on
           these raters, which are right about them; "all" counts verdicts that speak of other raters as well
80 %       answers prefer the second method in 80 % of cases: the power; "mild" with subjects' deviation 0.5 as well

Second: coverage of the nominal 95 % intervals of the win rate at the size that ``cgrpo study create`` plans: 200 items
of 30 subjects, 8 raters, 3 per item, 5 checks. A rater prefers the second method by an effect plus the subject's, the
item's and the answer's noise; small differences are ties. Careful raters fail a check with probability 2 %. Careless
ones answer at random, and may pass the checks by luck. Rows are three sizes of the subjects' effect, without and with
one careless rater: coverage over items, on the same subjects drawn once; over subjects, drawn anew each time; the mean
win rate found with and without the exclusion rule; the share of careful raters that it excludes.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from cgrpo.study.design import assign_raters
from cgrpo.study.gates import rules
from cgrpo.study.manifest import TIE
from cgrpo.study.statistics.comparisons import LOSS, WIN, Vote, shares
from cgrpo.study.statistics.intervals import RateInterval, rate_interval

Lean = NDArray[np.float64]  # [subjects, items, raters], or of shape 1 along an axis
ITEMS, SUBJECTS, RATERS, PER_ITEM, CHECKS = 200, 30, 8, 3, 5
EFFECT, ITEM, NOISE, TIE_BELOW = 0.35, 0.6, 1.0, 0.35  # the answers' unit is their own noise
SLIP = 0.02


# -- verdicts --------------------------------------------------------------------------------------


def leans(rng: np.random.Generator, subjects: int, raters: int) -> dict[str, Lean]:
    """By column, how far answers lean to the second method [S, 1, R]."""
    clear = np.full((1, 1, 1), stats.norm.ppf(0.8))
    return {
        "coin": np.zeros((1, 1, 1)),
        "subjects": rng.normal(0, 1, (subjects, 1, 1)),
        "all or no": rng.choice((-9.0, 9.0), (subjects, 1, 1)),
        "opinions": rng.normal(0, 1, (subjects, 1, raters)),
        "leans": rng.normal(0, 0.5, (1, 1, raters)),
        "80 %": clear,
        "mild": clear + rng.normal(0, 0.5, (subjects, 1, 1)),
    }


def rates(rng: np.random.Generator, lean_SIR: Lean, shape: tuple[int, int, int]) -> tuple[RateInterval, RateInterval]:
    """Over subjects and over raters, of answers without ties."""
    won_SIR = (lean_SIR + rng.normal(size=shape) > 0).astype(float)
    by_subject, by_rater = won_SIR.sum((1, 2)), won_SIR.sum((0, 1))
    subjects, items, raters = shape
    of_subject, of_rater = np.full(subjects, float(items * raters)), np.full(raters, float(subjects * items))
    return (
        rate_interval(by_subject, of_subject - by_subject, of_subject),
        rate_interval(by_rater, of_rater - by_rater, of_rater),
    )


def verdicts(draws: int) -> None:
    print(f"Share of studies with a sure verdict, {draws} draws a row")
    print("subjects items raters   coin subjects all or no opinions leans: these   all   80 %   mild")
    for subjects in (2, 3, 4, 6, 10, 30):
        for items in (1, 10):
            for raters in (1, 8):
                rng = np.random.default_rng(0)
                sure: dict[str, int] = dict.fromkeys((*leans(rng, 1, 1), "beyond"), 0)
                for _ in range(draws):
                    for name, lean_SIR in leans(rng, subjects, raters).items():
                        over_subjects, over_raters = rates(rng, lean_SIR, (subjects, items, raters))
                        found = over_subjects.above(0.5) or over_subjects.below(0.5)
                        sure[name] += found
                        if name == "leans":
                            sure["beyond"] += found and (over_raters.above(0.5) or over_raters.below(0.5))
                order = ("coin", "subjects", "all or no", "opinions", "leans", "beyond", "80 %", "mild")
                values = " ".join(f"{sure[name] / draws:7.3f}" for name in order)
                print(f"{subjects:8d} {items:5d} {raters:6d} {values}", flush=True)


# -- coverage --------------------------------------------------------------------------------------


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


def coverage(draws: int) -> None:
    failed = rules("pairwise", CHECKS, 0.75).failed_at_most
    print(f"Coverage, {draws} draws a row; {CHECKS} checks, more than {failed} failed exclude")
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


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--draws", type=int, default=500)
    draws = options.parse_args().draws
    verdicts(draws)
    coverage(draws)


if __name__ == "__main__":
    main()
