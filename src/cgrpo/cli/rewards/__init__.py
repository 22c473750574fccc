"""`cgrpo rewards`: a file a verb."""

from __future__ import annotations

import argparse

from cgrpo.cli.rewards import convert, score, serve
from cgrpo.cli.shared import add_group


def add(verbs: argparse._SubParsersAction) -> None:
    add_group(verbs, "rewards", "score pictures; serve or convert rewards", (score, serve, convert))
