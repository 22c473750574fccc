"""`cgrpo analyze spectrum`."""

from __future__ import annotations

import argparse

from cgrpo.cli.analyze.asked import add_analysis, request, say
from cgrpo.cli.shared import add_verb, finite, listed

DOES = "when structure and detail of the picture come to be (Figure 4)"
EXAMPLES = "cgrpo analyze spectrum outputs/run --split test"


def add(verbs: argparse._SubParsersAction) -> None:
    verb = add_verb(verbs, "spectrum", DOES, run, EXAMPLES)
    add_analysis(verb)
    verb.add_argument("--tasks", type=listed, default=96, metavar="N", help="pictures (default: 96)")
    verb.add_argument(
        "--cutoff",
        type=finite,
        default=0.25,
        metavar="C",
        help="between the bands, as a share of the highest frequency (default: 0.25)",
    )


def run(options: argparse.Namespace) -> None:
    from cgrpo.commands.analyze import analyze_spectrum

    say(analyze_spectrum(request(options), options.tasks, options.cutoff))
