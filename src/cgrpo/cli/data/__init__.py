"""`cgrpo data`: a file a verb."""

from __future__ import annotations

import argparse

from cgrpo.cli.data import check, encode, prompts, syncd
from cgrpo.cli.shared import add_group


def add(verbs: argparse._SubParsersAction) -> None:
    add_group(verbs, "data", "data sets: make, check, encode", (prompts, check, encode, syncd))
