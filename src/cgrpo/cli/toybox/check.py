"""`cgrpo toybox check`."""

from __future__ import annotations

import argparse

from cgrpo.cli.shared import add_settings, add_verb

DOES = "how well rewards and judges rank known corruptions; the segmenter's IoU"
EXAMPLES = "cgrpo toybox check"


def add(verbs: argparse._SubParsersAction) -> None:
    check = add_verb(verbs, "check", DOES, run, EXAMPLES)
    add_settings(check)


def run(options: argparse.Namespace) -> None:
    from cgrpo.commands.toybox import check_toybox

    table, iou = check_toybox(options.settings)
    for name, row in table.items():
        print(f"{name:18s}" + "".join(f"  {scorer} {value:.3f}" for scorer, value in row.items()))
    print("segmenter IoU     " + "".join(f"  {name} {value:.3f}" for name, value in iou.items()))
