"""`cgrpo evaluate`: a file a verb."""

from __future__ import annotations

import argparse

from cgrpo.cli.evaluate import compare, dreambench, manifest, toybox
from cgrpo.cli.shared import add_group


def add(verbs: argparse._SubParsersAction) -> None:
    about = "score a run, the base, or any pictures on an evaluation set"
    add_group(verbs, "evaluate", about, (toybox, dreambench, manifest, compare), "SET")
