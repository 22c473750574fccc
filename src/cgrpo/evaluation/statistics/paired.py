"""Paired differences with intervals over clusters.

The clusters are the sample: subjects, where the question is how it would be on others like them; training seeds, where
it is how another training would come out; a human study's raters; every case its own, for these cases only.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor


@dataclass(frozen=True)
class Paired:
    """Means of two arms and the 95 % interval of their mean difference."""

    base: float
    trained: float
    difference: float
    low: float
    high: float


def cluster_numbers(labels: Iterable[Hashable]) -> Tensor:
    """int64 [N]: each case's cluster, numbered from 0 in order of appearance, from whatever names it."""
    known: dict[Hashable, int] = {}
    return torch.tensor([known.setdefault(label, len(known)) for label in labels], dtype=torch.long)


def cluster_means(gap_N: Tensor, cluster_N: Tensor) -> Tensor:
    """[S]: the mean of each cluster's cases, by the clusters' numbers."""
    return torch.stack([gap_N[cluster_N == c].mean() for c in cluster_N.unique()]) if len(gap_N) else gap_N


def paired_difference(base_N: Tensor, trained_N: Tensor, cluster_N: Tensor, level: float = 0.95) -> Paired:
    """Student's interval over the clusters' mean differences: the clusters are the sample, their cases are not.

    Cases that either arm could not score (NaN) are left out of both. NaN bounds with fewer than two clusters.
    """
    valid_N = ~(base_N.isnan() | trained_N.isnan())
    base_N, trained_N, cluster_N = base_N[valid_N].double(), trained_N[valid_N].double(), cluster_N[valid_N]
    means = cluster_means(trained_N - base_N, cluster_N)
    count = len(means)
    centre = means.mean().item() if count else float("nan")
    half = float("nan")
    if count > 1:
        half = float(stats.t.ppf((1 + level) / 2, count - 1)) * means.std().item() / count**0.5
    return Paired(base_N.mean().item(), trained_N.mean().item(), centre, centre - half, centre + half)


def auc(better_N: Tensor, worse_N: Tensor) -> float:
    """Probability that a score of ``better`` exceeds one of ``worse``; ties count half (Mann-Whitney)."""
    gap = better_N[:, None] - worse_N[None]
    return ((gap > 0).double().mean() + 0.5 * (gap == 0).double().mean()).item()
