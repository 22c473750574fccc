"""`cgrpo toybox`: a file a verb."""

from __future__ import annotations

import argparse

from cgrpo.cli.shared import add_group
from cgrpo.cli.toybox import build, check


def add(verbs: argparse._SubParsersAction) -> None:
    add_group(verbs, "toybox", "the toy world: can its rewards be trusted; make it again", (check, build))
