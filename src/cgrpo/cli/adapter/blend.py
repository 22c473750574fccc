"""`cgrpo adapter blend`."""

from __future__ import annotations

import argparse

from cgrpo.cli.shared import add_verb, path, share

EXAMPLES = """\
cgrpo adapter blend outputs/identity outputs/prompt=0.3 --out between
cgrpo sample between --reference toy.png --prompt "a toy in the snow" --out pictures"""


def add(verbs: argparse._SubParsersAction) -> None:
    blend = add_verb(verbs, "blend", "mix adapters of one base, exactly", run, EXAMPLES)
    blend.add_argument("first", type=path, metavar="RUN", help="a run or an adapter; it has what the others leave of 1")
    blend.add_argument("others", type=share, nargs="+", metavar="RUN=SHARE", help="others, with shares from 0 to 1")
    blend.add_argument("--out", type=path, required=True, metavar="DIR", help="file or folder to write")


def run(options: argparse.Namespace) -> None:
    from cgrpo.commands.adapter import blend_runs

    print(blend_runs(options.first, options.others, options.out))
