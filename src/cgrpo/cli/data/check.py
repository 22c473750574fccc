"""`cgrpo data check`."""

from __future__ import annotations

import argparse
from pathlib import Path

from cgrpo.cli.shared import add_verb
from cgrpo.files import json_text

EXAMPLES = "cgrpo data check train.json --json problems.json"


def add(verbs: argparse._SubParsersAction) -> None:
    check = add_verb(verbs, "check", "every missing, broken, duplicate or suspicious row of a data set", run, EXAMPLES)
    check.add_argument("path", type=Path, help="a manifest, a folder, or an archive")
    check.add_argument("--root", type=Path, metavar="DIR", help="where the pictures lie, if not beside it")
    check.add_argument("--quick", action="store_true", help="open no picture: damage and likeness are not looked for")
    check.add_argument("--json", type=Path, metavar="FILE", help="also write the problems as JSON")


def run(options: argparse.Namespace) -> int:
    from cgrpo.commands.data import check_data

    report = check_data(options.path, root=options.root, quick=options.quick)
    for problem in report.problems:
        print(f"{problem.kind:15s} {problem.id}: {problem.message}")
    counts = ", ".join(f"{count} {kind}" for kind, count in report.counts.items() if count) or "no problems"
    print(f"{report.rows} rows, {report.pictures} pictures: {counts}")
    if options.json:
        options.json.write_text(json_text(report.as_dict(), indent=2) + "\n")
    return 1 if report.problems else 0
