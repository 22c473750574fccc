"""Methods compared on a benchmark's scores: tables, figures, and a page to leaf through."""

from cgrpo.evaluation.pages.comparison.page import write_comparison

__all__ = ["write_comparison"]
