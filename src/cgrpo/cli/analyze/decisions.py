"""`cgrpo analyze decisions`."""

from __future__ import annotations

import argparse

from cgrpo.cli.analyze.asked import add_analysis, request, say
from cgrpo.cli.shared import add_verb, listed

DOES = "which step decides which reward, by branching; weights measured from it"
EXAMPLES = """\
cgrpo analyze decisions outputs/run
cgrpo analyze decisions --set sampling.kind=cps --out outputs/base-cps"""


def add(verbs: argparse._SubParsersAction) -> None:
    verb = add_verb(verbs, "decisions", DOES, run, EXAMPLES)
    add_analysis(verb)
    verb.add_argument("--tasks", type=listed, default=24, metavar="N", help="trajectories (default: 24)")
    verb.add_argument("--branches", type=listed, default=12, metavar="N", help="samples a branching (default: 12)")


def run(options: argparse.Namespace) -> None:
    from cgrpo.commands.analyze import analyze_decisions

    say(analyze_decisions(request(options), options.tasks, options.branches))
