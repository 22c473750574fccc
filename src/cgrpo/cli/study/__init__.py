"""`cgrpo study`: a file a verb."""

from __future__ import annotations

import argparse

from cgrpo.cli.shared import add_group
from cgrpo.cli.study import backup, create, export, forget, import_, report, serve


def add(verbs: argparse._SubParsersAction) -> None:
    about = "ask people which pictures are better: pages, answers, statistics"
    add_group(verbs, "study", about, (create, serve, report, export, import_, backup, forget))
