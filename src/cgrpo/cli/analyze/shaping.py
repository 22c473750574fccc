"""`cgrpo analyze shaping`."""

from __future__ import annotations

import argparse

from cgrpo.cli.analyze.asked import add_analysis, request, say
from cgrpo.cli.shared import add_verb, listed

DOES = "SARS against a scaled plain sum, on real advantages"
EXAMPLES = """\
cgrpo analyze shaping outputs/run --groups 100"""


def add(verbs: argparse._SubParsersAction) -> None:
    verb = add_verb(verbs, "shaping", DOES, run, EXAMPLES)
    add_analysis(verb)
    verb.add_argument("--groups", type=listed, default=300, metavar="N", help="groups of samples (default: 300)")


def run(options: argparse.Namespace) -> None:
    from cgrpo.commands.analyze import analyze_shaping

    say(analyze_shaping(request(options), options.groups))
