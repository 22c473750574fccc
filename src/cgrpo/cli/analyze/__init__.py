"""`cgrpo analyze`: a file a verb."""

from __future__ import annotations

import argparse

from cgrpo.cli.analyze import alignment, conflict, decisions, gradients, shaping, spectrum
from cgrpo.cli.shared import add_group


def add(verbs: argparse._SubParsersAction) -> None:
    about = "why a run learns what it learns: numbers and a plot"
    add_group(verbs, "analyze", about, (decisions, conflict, shaping, gradients, spectrum, alignment), "ANALYSIS")
