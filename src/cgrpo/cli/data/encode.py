"""`cgrpo data encode`."""

from __future__ import annotations

import argparse

from cgrpo.cli.shared import RECIPE, add_settings, add_verb, path

DOES = "encode all prompts and references once, so that training needs no T5"
EXAMPLES = "cgrpo data encode uno-dinoseg-hpsv3 --set data.source=train.json --out encoded"


def add(verbs: argparse._SubParsersAction) -> None:
    encode = add_verb(verbs, "encode", DOES, run, EXAMPLES)
    encode.add_argument("recipe", nargs="?", default="toybox", help=RECIPE)
    add_settings(encode)
    encode.add_argument("--out", type=path, required=True, metavar="DIR", help="the cache; use it as data.cache")


def run(options: argparse.Namespace) -> None:
    from cgrpo.commands.encode import encode
    from cgrpo.config import load_config

    done = encode(load_config(options.recipe, options.settings), options.out)
    print(f"prompts: {done.texts_made} encoded, {done.texts_kept} already there")
    print(f"references: {done.references_made} encoded, {done.references_kept} already there")
    print(f"train with --set data.cache={options.out}")
