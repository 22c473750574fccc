"""`cgrpo evaluate manifest`."""

from __future__ import annotations

import argparse

from cgrpo.cli.evaluate.asked import add_benchmark, request, say_outcome
from cgrpo.cli.shared import add_verb, count, path

EXAMPLES = """\
cgrpo evaluate manifest my-subjects.json outputs/paper --out my-scores
cgrpo evaluate manifest my-subjects.json --images theirs --method theirs --out my-scores"""


def add(verbs: argparse._SubParsersAction) -> None:
    own = add_verb(verbs, "manifest", "references and prompts of your own", run, EXAMPLES)
    own.add_argument("manifest", type=path, help="a data set: a manifest, a folder, or an archive")
    add_benchmark(own)
    own.add_argument("--root", type=path, metavar="DIR", help="where the pictures lie, if not beside it")
    own.add_argument("--limit", type=count, default=0, metavar="N", help="its first N rows alone (default: 0, all)")


def run(options: argparse.Namespace) -> int:
    from cgrpo.commands.benchmark import evaluate_manifest

    return say_outcome(evaluate_manifest(options.manifest, request(options), options.root, options.limit))
