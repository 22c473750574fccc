"""Paired differences with intervals over clusters, tests, trade-offs, and methods compared by them."""

from cgrpo.evaluation.statistics.comparison import Comparison, Difference, SubjectDifference, compare_methods
from cgrpo.evaluation.statistics.means import Mean, short_summary
from cgrpo.evaluation.statistics.movement import movement, to_float
from cgrpo.evaluation.statistics.paired import Paired, auc, paired_difference
from cgrpo.evaluation.statistics.tradeoff import Tradeoff

__all__ = [
    "Comparison",
    "Difference",
    "Mean",
    "Paired",
    "SubjectDifference",
    "Tradeoff",
    "auc",
    "compare_methods",
    "movement",
    "paired_difference",
    "short_summary",
    "to_float",
]
