"""`cgrpo evaluate dreambench`."""

from __future__ import annotations

import argparse

from cgrpo.cli.evaluate.asked import add_benchmark, request, say_outcome
from cgrpo.cli.shared import add_verb, path

DOES = "DreamBench: generate and score, or score pictures of any system"
EXAMPLES = """\
cgrpo evaluate dreambench outputs/paper --data dreambench --out dreambench-scores
cgrpo evaluate dreambench --images uno-pictures --layout uno --method uno \\
    --data dreambench --out dreambench-scores
cgrpo evaluate dreambench --images theirs --layout "{subject}/{prompt}/{image}" \\
    --data dreambench --out scores --metric dino --metric clip --metric hpsv3 \\
    --protocol one --protocol all"""


def add(verbs: argparse._SubParsersAction) -> None:
    bench = add_verb(verbs, "dreambench", DOES, run, EXAMPLES)
    add_benchmark(bench)
    bench.add_argument("--data", type=path, required=True, metavar="DIR", help="the photographs: SUBJECT/NN.jpg")
    bench.add_argument("--list", choices=["single", "multi"], default="single", help="the official list")
    bench.add_argument("--subjects", nargs="+", default=[], metavar="NAME", help="some of its subjects (default: all)")


def run(options: argparse.Namespace) -> int:
    from cgrpo.commands.benchmark import evaluate_dreambench

    return say_outcome(evaluate_dreambench(options.data, request(options), options.list, tuple(options.subjects)))
