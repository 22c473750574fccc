"""`cgrpo analyze alignment`."""

from __future__ import annotations

import argparse

from cgrpo.cli.shared import add_verb, path

DOES = "which reward agrees with people's ratings, and how far anything could (Table 6)"
EXAMPLES = """\
cgrpo analyze alignment ratings --out alignment
cgrpo analyze alignment ratings --scores more-scores --out alignment"""


def add(verbs: argparse._SubParsersAction) -> None:
    verb = add_verb(verbs, "alignment", DOES, run, EXAMPLES)
    verb.add_argument("study", type=path, help="folder of a study made with cgrpo study create --mode rating")
    verb.add_argument(
        "--scores",
        type=path,
        metavar="DIR",
        help="scores of the same pictures, the --out of cgrpo evaluate (default: those the study was made from)",
    )
    verb.add_argument("--out", type=path, required=True, metavar="DIR", help="folder for alignment.json, .md and .html")


def run(options: argparse.Namespace) -> None:
    from cgrpo.study.report.alignment import write_alignment

    print(write_alignment(options.study, options.scores, options.out))
