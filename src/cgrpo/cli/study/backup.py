"""`cgrpo study backup`."""

from __future__ import annotations

import argparse

from cgrpo.cli.shared import add_verb, path

EXAMPLES = "cgrpo study backup study --out study-monday"


def add(verbs: argparse._SubParsersAction) -> None:
    backup = add_verb(verbs, "backup", "a whole copy of a study, also while it is served", run, EXAMPLES)
    backup.add_argument("study", type=path, help="folder that cgrpo study create wrote")
    backup.add_argument("--out", type=path, required=True, metavar="DIR", help="the copy's new folder")


def run(options: argparse.Namespace) -> None:
    from cgrpo.commands.study import backup_study

    print(f"{options.out}: {backup_study(options.study, options.out)} answers")
