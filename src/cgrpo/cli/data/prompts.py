"""`cgrpo data prompts`."""

from __future__ import annotations

import argparse

from cgrpo.cli.shared import add_verb, count, path, positive

EXAMPLES = """\
cgrpo data prompts photos --subject dog --out dog.json
cgrpo data prompts photos --subject "ceramic mug" --prompts mine.txt --count 60 --out mug.json"""


def add(verbs: argparse._SubParsersAction) -> None:
    does = "from photographs of one subject to a data set, some prompts held out"
    verb = add_verb(verbs, "prompts", does, run, EXAMPLES)
    verb.add_argument("folder", type=path, help="the subject's photographs")
    verb.add_argument("--subject", required=True, metavar="WORD", help="what it is, as a prompt would say: dog")
    verb.add_argument("--out", type=path, required=True, metavar="FILE.json", help="the data set to write")
    verb.add_argument(
        "--prompts", type=path, metavar="FILE", help="a prompt a line, {class} for the subject (default: DreamBench's)"
    )
    verb.add_argument(
        "--kind",
        choices=("live", "object"),
        help="which of DreamBench's two lists of 25 prompts (default: object, but live for its dog and cat)",
    )
    verb.add_argument("--count", type=count, default=0, metavar="N", help="tasks to train on (default: all)")
    verb.add_argument("--held-out", type=count, default=8, metavar="N", help="prompts never trained on (default: 8)")
    verb.add_argument("--references", type=positive, default=1, metavar="N", help="photographs a task (default: 1)")


def run(options: argparse.Namespace) -> None:
    from cgrpo.commands.own_subject import write_own

    written = write_own(
        options.folder,
        options.subject,
        options.out,
        prompts=options.prompts,
        kind=options.kind,
        count=options.count,
        heldout=options.held_out,
        references=options.references,
    )
    for line in written:
        print(line)
