"""`cgrpo analyze gradients`."""

from __future__ import annotations

import argparse

from cgrpo.cli.analyze.asked import add_analysis, request, say
from cgrpo.cli.shared import add_verb, listed

DOES = "cosine of the rewards' gradients, by step or noise level"
EXAMPLES = """\
cgrpo analyze gradients outputs/run
cgrpo analyze gradients --recipe forward --out outputs/base-forward"""


def add(verbs: argparse._SubParsersAction) -> None:
    verb = add_verb(verbs, "gradients", DOES, run, EXAMPLES)
    add_analysis(verb)
    verb.add_argument("--groups", type=listed, default=24, metavar="N", help="groups of samples (default: 24)")


def run(options: argparse.Namespace) -> None:
    from cgrpo.commands.analyze import analyze_gradients

    say(analyze_gradients(request(options), options.groups))
