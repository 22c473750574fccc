"""`cgrpo study forget`."""

from __future__ import annotations

import argparse

from cgrpo.cli.shared import add_verb, path, positive

EXAMPLES = """\
cgrpo study forget study --rater 3
cgrpo study forget study --link http://127.0.0.1:8421/r/..."""


def add(verbs: argparse._SubParsersAction) -> None:
    forget = add_verb(verbs, "forget", "delete a rater's answers, times and link for good", run, EXAMPLES)
    forget.add_argument("study", type=path, help="folder that cgrpo study create wrote; it may be served meanwhile")
    who = forget.add_mutually_exclusive_group(required=True)
    who.add_argument("--rater", type=positive, metavar="N", help="number, as in links.txt and in the report")
    who.add_argument("--link", default="", metavar="URL", help="the rater's link, or its last part")


def run(options: argparse.Namespace) -> None:
    from cgrpo.commands.study import forget_rater

    number, count = forget_rater(options.study, options.rater, options.link)
    print(f"rater {number}: {count} answers deleted; backups and earlier reports are yours to delete")
