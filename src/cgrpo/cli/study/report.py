"""`cgrpo study report`."""

from __future__ import annotations

import argparse

from cgrpo.cli.shared import add_verb, path

EXAMPLES = "cgrpo study report study --out study-report"


def add(verbs: argparse._SubParsersAction) -> None:
    report = add_verb(verbs, "report", "wins, ties and losses with intervals, agreement, checks; a page", run, EXAMPLES)
    report.add_argument("study", type=path, help="folder that cgrpo study create wrote; it may be served meanwhile")
    report.add_argument("--out", type=path, required=True, metavar="DIR", help="folder for report.json, .md and .html")


def run(options: argparse.Namespace) -> None:
    from cgrpo.study.report import write_report

    print(write_report(options.study, options.out))
