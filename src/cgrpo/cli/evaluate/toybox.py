"""`cgrpo evaluate toybox`."""

from __future__ import annotations

import argparse

from cgrpo.cli.evaluate.asked import add_benchmark, request, say_outcome
from cgrpo.cli.shared import add_verb, listed

EXAMPLES = """\
cgrpo evaluate toybox --out toybox-scores
cgrpo evaluate toybox outputs/naive-1 --out toybox-scores
cgrpo evaluate toybox outputs/naive-1 --subjects 8 --prompts 5 --seeds 1 --out quick"""


def add(verbs: argparse._SubParsersAction) -> None:
    toybox = add_verb(verbs, "toybox", "the toy world's held-out subjects and prompts", run, EXAMPLES)
    add_benchmark(toybox)
    toybox.add_argument("--subjects", type=listed, default=30, metavar="N", help="held-out subjects (default: 30)")
    toybox.add_argument("--prompts", type=listed, default=25, metavar="N", help="prompts a subject (default: 25)")


def run(options: argparse.Namespace) -> int:
    from cgrpo.commands.benchmark import evaluate_toybox

    return say_outcome(evaluate_toybox(request(options), options.subjects, options.prompts))
