"""The report of a run."""

from cgrpo.evaluation.pages.report.page import write_report

__all__ = ["write_report"]
