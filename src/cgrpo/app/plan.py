"""`cgrpo plan` and `cgrpo cite`: what costs nothing."""

import sys
from typing import Annotated

from cyclopts import Parameter

from cgrpo.app.options import Finite, NewFile, Positive, Recipe, Settings, Whole, command, write_json
from cgrpo.app.terminal import coloured


def plan(
    recipe: Recipe = "toybox",
    /,
    *,
    settings: Settings = (),
    gpu: Annotated[str, Parameter(metavar="NAME")] = "a100-80gb",
    tflops: Annotated[Finite | None, Parameter(metavar="T")] = None,
    memory: Annotated[Finite | None, Parameter(metavar="GIB")] = None,
    gpus: Positive = 1,
    utilisation: Annotated[Finite | None, Parameter(metavar="U")] = None,
    references: Whole | None = None,
    json: NewFile | None = None,
) -> None:
    """Parameters, FLOPs, memory and hours of a recipe, without loading any weights.

    Args:
        gpu: a GPU by name, such as "RTX 4090"
        tflops: bf16 peak of a GPU that has no name here, TFLOP/s
        memory: memory of that GPU, GiB
        gpus: how many GPUs
        utilisation: share of the GPU's bf16 peak, 0 to 1 (default: as measured on that GPU, else 0.4)
        references: references per task (default: weights.subjects)
        json: also write the plan as JSON
    """
    from cgrpo import plan as planning
    from cgrpo.config import load_config

    if sys.stderr.isatty():
        print("counting the models' parameters, operations and tensors ...", file=sys.stderr)
    result = planning.plan(
        load_config(recipe, settings),
        gpu=gpu,
        gpus=gpus,
        utilisation=utilisation,
        references=references,
        tflops=tflops,
        memory=memory,
    )
    verdict, _, details = planning.render(result).partition("\n\n")
    print(f"{coloured(verdict, 'rose' if result.fits else 'fell')}\n\n{details}")
    if json:
        write_json(json, result.as_dict())


def cite() -> None:
    """How to cite the paper."""
    print(CITATION)


CITATION = """\
@inproceedings{huang2026customizedgrpo,
  title     = {From Competition to Synergy: Unlocking Reinforcement Learning for Subject-Driven Image Generation},
  author    = {Huang, Ziwei and Shu, Yin and Fang, Hao and Long, Quanyu and Wang, Wenya and Guo, Qiushi and
               Ge, Tiezheng and Gan, Leilei},
  booktitle = {Annual Meeting of the Association for Computational Linguistics (ACL)},
  year      = {2026},
  note      = {arXiv:2510.18263}
}"""

EXAMPLES = """\
cgrpo plan uno-dinoseg-hpsv3 --gpu a100-80gb --gpus 8
cgrpo plan kontext --set policy.rank=64 --gpu h100-80gb --json plan.json"""

app = command("plan", plan, EXAMPLES)
cite_app = command("cite", cite, "cgrpo cite")
