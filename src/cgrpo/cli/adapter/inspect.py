"""`cgrpo adapter inspect`."""

from __future__ import annotations

import argparse

from cgrpo.cli.shared import add_verb, path
from cgrpo.files import json_text

EXAMPLES = "cgrpo adapter inspect outputs/paper/adapter"


def add(verbs: argparse._SubParsersAction) -> None:
    inspect = add_verb(verbs, "inspect", "what an adapter file holds", run, EXAMPLES)
    inspect.add_argument("file", type=path, help="an adapter file or folder")


def run(options: argparse.Namespace) -> None:
    from cgrpo.commands.adapter import inspect_adapter

    print(json_text(inspect_adapter(options.file), indent=2))
