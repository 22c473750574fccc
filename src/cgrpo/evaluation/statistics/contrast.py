"""Two arms over the same cases: interval, test, and how many clusters agree."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cgrpo.evaluation.statistics.paired import Paired, cluster_means, paired_difference
from cgrpo.evaluation.statistics.significance import sign_flip

LEVEL = 0.95


@dataclass(frozen=True)
class Contrast:
    """What another arm is against the base.

    over_clusters  headline: means, and Student's interval over the clusters' mean differences
    over_cases     the same over cases around their own mean: for these cases only
    improved       share of clusters with a mean difference above 0
    p, exact       sign flips of the clusters' mean differences; whether all flips were counted. NaN if not asked for
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

    ``test``: whether to compute p; what is only explored gets none. Raises ValueError for no case or a missing score.
    """
    gap_N = other_N - base_N
    if not len(gap_N) or gap_N.isnan().any():
        raise ValueError("a contrast needs cases that both arms have a score for")
    gap_S = cluster_means(gap_N, cluster_N).double().numpy()
    p, exact = sign_flip(gap_S) if test else (math.nan, False)
    return Contrast(
        len(gap_S),
        len(gap_N),
        paired_difference(base_N, other_N, cluster_N, LEVEL),
        paired_difference(base_N, other_N, torch.arange(len(gap_N)), LEVEL),
        float((gap_S > 0).mean()),
        p,
        exact,
    )
