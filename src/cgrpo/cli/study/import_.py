"""`cgrpo study import`."""

from __future__ import annotations

import argparse

from cgrpo.cli.shared import add_verb, path

EXAMPLES = "cgrpo study import study project-1.json"


def add(verbs: argparse._SubParsersAction) -> None:
    take = add_verb(verbs, "import", "answers that were given in Label Studio", run, EXAMPLES)
    take.add_argument("study", type=path, help="the study whose tasks were exported to Label Studio")
    take.add_argument("file", type=path, help="what Label Studio exported as JSON")


def run(options: argparse.Namespace) -> None:
    from cgrpo.commands.study import import_label_studio

    made = import_label_studio(options.study, options.file)
    print(f"{made.answers} new answers of {made.raters} raters; {made.skipped} annotations skipped")
