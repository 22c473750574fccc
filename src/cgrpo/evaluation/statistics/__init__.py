"""Paired differences with intervals over clusters, tests, trade-offs, and methods compared by them."""

from cgrpo.evaluation.statistics.cells import Mean, short_summary
from cgrpo.evaluation.statistics.comparison import Comparison, Difference, SubjectDifference, compare_methods
from cgrpo.evaluation.statistics.paired import (
    MEANING,
    Clusters,
    Contrast,
    Paired,
    TwoLevel,
    Unit,
    auc,
    cluster,
    cluster_means,
    cluster_numbers,
    clusters_of,
    contrast,
    paired_difference,
    two_level,
)
from cgrpo.evaluation.statistics.tradeoff import Tradeoff

__all__ = [
    "MEANING",
    "Clusters",
    "Comparison",
    "Contrast",
    "Difference",
    "Mean",
    "Paired",
    "SubjectDifference",
    "Tradeoff",
    "TwoLevel",
    "Unit",
    "auc",
    "cluster",
    "cluster_means",
    "cluster_numbers",
    "clusters_of",
    "compare_methods",
    "contrast",
    "paired_difference",
    "short_summary",
    "two_level",
]
