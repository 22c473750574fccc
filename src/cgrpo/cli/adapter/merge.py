"""`cgrpo adapter merge`."""

from __future__ import annotations

import argparse

from cgrpo.cli.shared import add_settings, add_verb, path

EXAMPLES = "cgrpo adapter merge outputs/paper/adapter --recipe uno-dinoseg-hpsv3 --out merged-flux"


def add(verbs: argparse._SubParsersAction) -> None:
    merge = add_verb(verbs, "merge", "write a whole diffusers folder with the adapter in its weights", run, EXAMPLES)
    merge.add_argument("file", type=path, help="an adapter file or folder")
    merge.add_argument("--recipe", default="toybox", help="describes the base")
    add_settings(merge)
    merge.add_argument("--out", type=path, required=True, metavar="DIR", help="folder to write")


def run(options: argparse.Namespace) -> None:
    from cgrpo.commands.adapter import merge_adapter
    from cgrpo.config import load_config

    print(merge_adapter(options.file, load_config(options.recipe, options.settings), options.out))
