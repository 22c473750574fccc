"""Paired differences of two arms, with intervals over clusters.

The clusters are the sample. They are subjects, where the question is how it would be on others like them; training
seeds, where it is how another run would come out; a human study's raters; or every case its own, for these cases only.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from scipy import stats
from torch import Tensor

from cgrpo import fingerprint
from cgrpo.statistics import LEVEL, Interval, sign_flip, student_interval
from cgrpo.types import Batch

Unit = Literal["subjects", "prompts"]
# What intervals over each say.
MEANING: dict[Unit, str] = {
    "subjects": "how it would be on other subjects like these",
    "prompts": "how it would be with other prompts like these for this one subject; of other subjects they say nothing",
}


# -- clusters --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Clusters:
    """``number_N`` int64 [N]: the cluster of each task, from 0 on. ``unit``: what a cluster is."""

    number_N: Tensor
    unit: Unit

    @property
    def count(self) -> int:
        return len(self.number_N.unique())


def clusters_of(batch: Batch) -> Clusters:
    """The subjects that tasks show, as the dataset names them, else told apart by their references' pixels.

    Tasks of one subject are no independent sample. Where all tasks show one subject, its prompts are the clusters.
    """
    ids = batch.subject_ids or ("",) * len(batch)
    shown: list[Hashable] = [
        name or frozenset(map(fingerprint.of_picture, pictures))
        for name, pictures in zip(ids, batch.references, strict=True)
    ]
    return cluster(shown, batch.prompts)


def cluster(subjects: Sequence[Hashable], prompts: Sequence[str]) -> Clusters:
    """By the subjects' names, or by prompts where there is one subject alone with several."""
    alone = len(set(subjects)) == 1 < len(set(prompts))
    return Clusters(cluster_numbers(prompts if alone else subjects), "prompts" if alone else "subjects")


def cluster_numbers(labels: Iterable[Hashable]) -> Tensor:
    """int64 [N]: each case's cluster, numbered from 0 in order of appearance, from whatever names it."""
    numbers: dict[Hashable, int] = {}
    return torch.tensor([numbers.setdefault(label, len(numbers)) for label in labels], dtype=torch.long)


def cluster_means(gap_N: Tensor, cluster_N: Tensor) -> Tensor:
    """[S]: the mean of each cluster's cases, by the clusters' numbers."""
    return torch.stack([gap_N[cluster_N == c].mean() for c in cluster_N.unique()]) if len(gap_N) else gap_N


# -- differences -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Paired(Interval):
    """Means of two arms, and the interval of their mean difference."""

    base: float
    trained: float
    difference: float


def paired_difference(base_N: Tensor, trained_N: Tensor, cluster_N: Tensor, level: float = LEVEL) -> Paired:
    """Student's interval over the clusters' mean differences: the clusters are the sample, their cases are not.

    Cases that either arm could not score (NaN) are left out of both. NaN bounds with fewer than two clusters.
    """
    valid_N = ~(base_N.isnan() | trained_N.isnan())
    base_N, trained_N, cluster_N = base_N[valid_N].double(), trained_N[valid_N].double(), cluster_N[valid_N]
    means = cluster_means(trained_N - base_N, cluster_N)
    centre = means.mean().item() if len(means) else math.nan
    deviation = means.std().item() if len(means) > 1 else math.nan
    bounds = student_interval(centre, deviation, len(means), level=level)
    return Paired(bounds.low, bounds.high, base_N.mean().item(), trained_N.mean().item(), centre)


@dataclass(frozen=True)
class Contrast:
    """Another arm against the base.

    over_clusters  headline: means, and Student's interval over the clusters' mean differences
    over_cases     the same over cases around their own mean: for these cases only
    improved       share of clusters with a mean difference above 0
    p, exact       sign flips of the clusters' mean differences; whether all flips were counted. NaN where not tested
    """

    clusters: int
    cases: int
    over_clusters: Paired
    over_cases: Paired
    improved: float
    p: float
    exact: bool


def contrast(base_N: Tensor, other_N: Tensor, cluster_N: Tensor, *, test: bool) -> Contrast:
    """The contrast of N cases that both arms have a score for, with cluster ``cluster_N`` [N] as the sample.

    ``test``: whether to compute p; groups that are only explored have none. Raises ValueError for no case or a missing
    score.
    """
    gap_N = other_N - base_N
    if not len(gap_N) or gap_N.isnan().any():
        raise ValueError("a contrast needs cases that both arms have a score for")
    gap_S = cluster_means(gap_N, cluster_N).double().numpy()
    p, exact = sign_flip(gap_S) if test else (math.nan, False)
    return Contrast(
        len(gap_S),
        len(gap_N),
        paired_difference(base_N, other_N, cluster_N),
        paired_difference(base_N, other_N, torch.arange(len(gap_N))),
        float((gap_S > 0).mean()),
        p,
        exact,
    )


@dataclass(frozen=True)
class TwoLevel(Interval):
    """A mean with its interval over ``seeds`` and ``subjects``; of one seed, over subjects alone.

    p   two-sided p-value of a mean of 0, by the same Student's distribution; NaN where the bounds are
    """

    mean: float
    seeds: int
    subjects: int
    p: float = math.nan


def two_level(gap_SJ: Tensor) -> TwoLevel:
    """The mean of ``gap_SJ`` [seeds, subjects], all seeds on the same subjects, both drawn at random.

    Two crossed random effects without replication: by the mean squares of rows, columns and rest, the variance of the
    grand mean is (MS_seed + MS_subject - MS_rest) / (S J), its degrees of freedom Satterthwaite's (Searle, Casella and
    McCulloch, Variance Components, 1992, chapter 4). It is taken no smaller than the larger of the two alone, and the
    degrees of freedom no fewer than those of the seeds alone.
    benchmarks/interval_coverage.py measures the coverage. NaN bounds for fewer than two subjects.
    """
    seeds, subjects = gap_SJ.shape
    gap_SJ = gap_SJ.double()
    mean = gap_SJ.mean()
    row_S, column_J = gap_SJ.mean(1) - mean, gap_SJ.mean(0) - mean
    if subjects < 2:
        return TwoLevel(math.nan, math.nan, mean.item(), seeds, subjects)
    by_subject = seeds * column_J.square().sum().item() / (subjects - 1)
    if seeds == 1:
        variance, freedom = by_subject / subjects, float(subjects - 1)
    else:
        by_seed = subjects * row_S.square().sum().item() / (seeds - 1)
        rest_SJ = gap_SJ - mean - row_S[:, None] - column_J
        rest = rest_SJ.square().sum().item() / ((seeds - 1) * (subjects - 1))
        squares = {seeds - 1: by_seed, subjects - 1: by_subject}
        total = by_seed + by_subject - rest
        parts = by_seed**2 / (seeds - 1) + by_subject**2 / (subjects - 1) + rest**2 / ((seeds - 1) * (subjects - 1))
        freedom = total**2 / parts if total > 0 and parts > 0 else float(min(squares))
        variance = max(total, by_seed, by_subject) / (seeds * subjects)
    freedom = max(freedom, seeds - 1.0, 1.0)
    bounds = student_interval(mean.item(), variance**0.5, 1, freedom)
    p = float(2 * stats.t.sf(abs(mean.item()) / variance**0.5, freedom)) if variance else float(mean.item() == 0)
    return TwoLevel(bounds.low, bounds.high, mean.item(), seeds, subjects, p)


def auc(better_N: Tensor, worse_N: Tensor) -> float:
    """Probability that a score of ``better`` exceeds one of ``worse``; ties count half (Mann-Whitney).

    A pair with a missing score counts as not exceeding, where scipy's mannwhitneyu would return NaN for all.
    """
    gap = better_N[:, None] - worse_N[None]
    return ((gap > 0).double().mean() + 0.5 * (gap == 0).double().mean()).item()
