"""`cgrpo analyze conflict`."""

from __future__ import annotations

import argparse

from cgrpo.cli.analyze.asked import add_analysis, request, say
from cgrpo.cli.shared import add_verb, listed

DOES = "how often the rewards disagree, and the credit of such samples (Figures 3 and 7)"
EXAMPLES = """\
cgrpo analyze conflict outputs/run
cgrpo analyze conflict outputs/run --base
cgrpo analyze conflict --set rewards.identity.masks=reference --out outputs/base-conflict"""


def add(verbs: argparse._SubParsersAction) -> None:
    verb = add_verb(verbs, "conflict", DOES, run, EXAMPLES)
    add_analysis(verb)
    verb.add_argument("--groups", type=listed, default=300, metavar="N", help="groups of samples (default: 300)")


def run(options: argparse.Namespace) -> None:
    from cgrpo.commands.analyze import analyze_conflict

    say(analyze_conflict(request(options), options.groups))
