"""`cgrpo toybox build`."""

from __future__ import annotations

import argparse

from cgrpo.cli.shared import add_verb, finite, path, seed

EXAMPLES = """\
cgrpo toybox build --out my-toybox --share 0.01
cgrpo toybox build --world copy --out my-copying"""


def add(verbs: argparse._SubParsersAction) -> None:
    build = add_verb(verbs, "build", "make the toy world's checkpoints again from a seed", run, EXAMPLES)
    build.add_argument("--out", type=path, required=True, metavar="DIR", help="folder for the checkpoints")
    build.add_argument(
        "--world",
        choices=("toybox", "copy", "copy-majority"),
        default="toybox",
        help="toybox: every checkpoint (default); copy, copy-majority: a policy folder whose base copies its reference "
        "into about one picture of six, or into most",
    )
    build.add_argument("--seed", type=seed, default=0, help="seed of all data and weights (default: 0)")
    build.add_argument(
        "--share", type=finite, default=1.0, help="share of the full training steps, for a quick try (default: 1)"
    )


def run(options: argparse.Namespace) -> None:
    from cgrpo.toybox.build import build_toybox
    from cgrpo.toybox.build.copying import build_copying

    if options.world == "toybox":
        build_toybox(options.out, options.seed, options.share, say=print)
    else:
        print(build_copying(options.world, options.out, options.seed, options.share, print))
