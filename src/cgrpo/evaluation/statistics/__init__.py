"""Paired differences with intervals over clusters, tests, trade-offs, and methods compared by them."""

from cgrpo.evaluation.statistics.clusters import MEANING, Clusters, Unit, cluster, clusters_of
from cgrpo.evaluation.statistics.comparison import Comparison, Difference, SubjectDifference, compare_methods
from cgrpo.evaluation.statistics.contrast import Contrast, contrast
from cgrpo.evaluation.statistics.means import Mean, short_summary
from cgrpo.evaluation.statistics.metrics import metric_of, movement
from cgrpo.evaluation.statistics.paired import Paired, auc, cluster_means, cluster_numbers, paired_difference
from cgrpo.evaluation.statistics.tradeoff import Tradeoff
from cgrpo.evaluation.statistics.two_level import TwoLevel, two_level

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
    "metric_of",
    "movement",
    "paired_difference",
    "short_summary",
    "two_level",
]
