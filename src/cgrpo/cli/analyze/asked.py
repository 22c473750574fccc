"""What all analyses are asked, and how it is said what came of it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from cgrpo.cli.shared import RUN, add_settings, path, seed

if TYPE_CHECKING:
    from cgrpo.commands.analyze import Analysis, AnalysisRequest


def add_analysis(verb: argparse.ArgumentParser) -> None:
    """The options that all of them have."""
    verb.add_argument("run", nargs="?", type=path, help=RUN)
    verb.add_argument("--base", action="store_true", help="the untrained policy, with the run's settings")
    verb.add_argument("--out", type=path, metavar="DIR", help="where json and plot go (default: RUN/analysis)")
    verb.add_argument(
        "--split",
        choices=("train", "validation", "test"),
        default="train",
        help="tasks as training meets them (default), or the toy world's held-out ones",
    )
    verb.add_argument("--seed", type=seed, default=0, metavar="S", help="which tasks and noise (default: 0)")
    verb.add_argument("--recipe", default="toybox", help="describes the base, unless a run directory does")
    add_settings(verb)


def request(options: argparse.Namespace) -> AnalysisRequest:
    """The options that all of them have, as the commands take them."""
    from cgrpo.commands.analyze import AnalysisRequest

    return AnalysisRequest(
        options.run,
        options.base,
        options.out,
        recipe=options.recipe,
        settings=options.settings,
        split=options.split,
        seed=options.seed,
    )


def say(analysis: Analysis) -> None:
    """Prints the tables, and where the files are."""
    for table in analysis.found.tables():
        print(f"{table.title}\n{table.note}\n\n{table.text()}\n")
    print(f"{analysis.json}, {analysis.plot}")
