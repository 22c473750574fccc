"""`cgrpo rewards convert`."""

from __future__ import annotations

import argparse

from cgrpo.cli.shared import add_verb, path
from cgrpo.rewards import conversions

EXAMPLES = "cgrpo rewards convert sa_0_4_vit_l_14_linear.pth --to aesthetic-v1 --out aesthetic.safetensors"


def add(verbs: argparse._SubParsersAction) -> None:
    convert = add_verb(verbs, "convert", "turn a pickled reward checkpoint into safetensors, once", run, EXAMPLES)
    convert.add_argument("file", type=path, help="a published .pth, .pt or .bin file")
    convert.add_argument(
        "--to",
        required=True,
        choices=[*conversions(), "folder"],
        help="what it holds; folder: a transformers checkpoint that is a pytorch_model.bin alone",
    )
    convert.add_argument(
        "--reference", default="", metavar="FOLDER", help="configuration and tokenizer (default: the published one)"
    )
    convert.add_argument("--out", type=path, required=True, metavar="PATH", help="file or folder to write")


def run(options: argparse.Namespace) -> None:
    from cgrpo.rewards import convert_reward

    print(convert_reward(options.file, options.to, options.out, options.reference))
