"""What a study found, as numbers, tables and a page."""

from cgrpo.study.report.write import write_report

__all__ = ["write_report"]
