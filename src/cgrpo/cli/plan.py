"""`cgrpo plan`."""

from __future__ import annotations

import argparse

from cgrpo.cli.shared import RECIPE, add_settings, add_verb, count, finite, new_file, positive, write_json

DOES = "parameters, FLOPs, memory and hours of a recipe, before loading anything"
EXAMPLES = """\
cgrpo plan uno-dinoseg-hpsv3 --gpu a100-80gb --gpus 8
cgrpo plan kontext --set policy.rank=64 --gpu h100-80gb --json plan.json"""


def add(verbs: argparse._SubParsersAction) -> None:
    plan = add_verb(verbs, "plan", DOES, run, EXAMPLES)
    plan.add_argument("recipe", nargs="?", default="toybox", help=RECIPE)
    add_settings(plan)
    plan.add_argument("--gpu", default="a100-80gb", metavar="NAME", help="a GPU by name (default: a100-80gb)")
    plan.add_argument("--tflops", type=finite, metavar="T", help="bf16 peak of a GPU that has no name here, TFLOP/s")
    plan.add_argument("--memory", type=finite, metavar="GIB", help="its memory, GiB")
    plan.add_argument("--gpus", type=positive, default=1, metavar="N", help="how many (default: 1)")
    plan.add_argument(
        "--utilisation",
        type=finite,
        metavar="U",
        help="share of its bf16 peak, 0 to 1 (default: as measured on that GPU, else 0.4)",
    )
    plan.add_argument("--references", type=count, default=1, metavar="N", help="references per task (default: 1)")
    plan.add_argument("--json", type=new_file, metavar="FILE", help="also write the plan as JSON")


def run(options: argparse.Namespace) -> None:
    from cgrpo.config import load_config
    from cgrpo.plan import plan, render

    result = plan(
        load_config(options.recipe, options.settings),
        gpu=options.gpu,
        gpus=options.gpus,
        utilisation=options.utilisation,
        references=options.references,
        tflops=options.tflops,
        memory=options.memory,
    )
    print(render(result))
    if options.json:
        write_json(options.json, result.as_dict())
