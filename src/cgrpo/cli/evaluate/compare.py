"""`cgrpo evaluate compare`."""

from __future__ import annotations

import argparse

from cgrpo.cli.shared import add_verb, path

DOES = "methods scored into one folder: intervals, tests, tables, a page"
EXAMPLES = "cgrpo evaluate compare dreambench-scores --baseline uno --out comparison"


def add(verbs: argparse._SubParsersAction) -> None:
    compare = add_verb(verbs, "compare", DOES, run, EXAMPLES)
    compare.add_argument("folder", type=path, help="the --out of cgrpo evaluate")
    compare.add_argument("--baseline", metavar="METHOD", help="what the others are compared with (default: base)")
    compare.add_argument("--out", type=path, required=True, metavar="DIR", help="folder for tables, figures and page")


def run(options: argparse.Namespace) -> None:
    from cgrpo.evaluation.pages.comparison import write_comparison

    print(write_comparison(options.folder, options.baseline, options.out))
