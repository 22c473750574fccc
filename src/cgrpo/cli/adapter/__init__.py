"""`cgrpo adapter`: a file a verb."""

from __future__ import annotations

import argparse

from cgrpo.cli.adapter import blend, convert, inspect, merge
from cgrpo.cli.shared import add_group


def add(verbs: argparse._SubParsersAction) -> None:
    add_group(verbs, "adapter", "adapter files: convert, merge, blend, inspect", (convert, merge, blend, inspect))
