"""Methods compared on a benchmark's scores: intervals, tests, trade-offs, tables, and a page to leaf through."""

from cgrpo.evaluation.comparison.compare import Comparison, Difference, Mean, SubjectDifference, compare_methods
from cgrpo.evaluation.comparison.tradeoff import Tradeoff
from cgrpo.evaluation.comparison.write import write_comparison

__all__ = [
    "Comparison",
    "Difference",
    "Mean",
    "SubjectDifference",
    "Tradeoff",
    "compare_methods",
    "write_comparison",
]
