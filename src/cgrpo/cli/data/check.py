"""`cgrpo data check`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from cgrpo.cli.shared import add_settings, add_verb, new_file, path, write_json
from cgrpo.errors import UserError

if TYPE_CHECKING:
    from cgrpo.data import CheckReport

DOES = "every missing, broken, duplicate or suspicious row of a data set, or all that a recipe lacks"
EXAMPLES = """\
cgrpo data check train.json --json problems.json
cgrpo data check uno-24gb --set data.source=dog.json --set guard.source=dog.heldout.json"""


def add(verbs: argparse._SubParsersAction) -> None:
    check = add_verb(verbs, "check", DOES, run, EXAMPLES)
    check.add_argument(
        "path", type=path, help="a manifest, a folder, or an archive; or a recipe, with its data, tasks and rewards"
    )
    add_settings(check)
    check.add_argument("--root", type=path, metavar="DIR", help="where the pictures lie, if not beside it")
    check.add_argument("--quick", action="store_true", help="open no picture: damage and likeness are not looked for")
    check.add_argument("--json", type=new_file, metavar="FILE", help="also write the problems as JSON")


def run(options: argparse.Namespace) -> int:
    from cgrpo.commands.data import check_data, check_recipe, is_recipe

    if is_recipe(options.path):
        reports, needs, notes = check_recipe(str(options.path), options.settings, quick=options.quick)
    elif options.settings:
        raise UserError(f"--set goes with a recipe, and {options.path} is a data set; give it as data.source of one")
    else:
        reports, needs, notes = [check_data(options.path, root=options.root, quick=options.quick)], [], []
    for report in reports:
        _say(report)
    remarks = dict.fromkeys((*(note for report in reports for note in report.notes), *notes))
    for kind, lines in {"need": needs, "note": remarks}.items():
        for line in lines:
            print(f"{kind:15s} {line}")
    if options.json:
        tables = [report.as_dict() for report in reports]
        told = tables[0] if len(tables) == 1 and not needs else {"sets": tables, "needs": needs, "notes": notes}
        write_json(options.json, told)
    return 1 if needs or any(report.problems for report in reports) else 0


def _say(report: CheckReport) -> None:
    for problem in report.problems:
        print(f"{problem.kind:15s} {problem.id}: {problem.message}")
    counts = ", ".join(f"{count} {kind}" for kind, count in report.counts.items() if count) or "no problems"
    print(f"{report.manifest}: {report.rows} rows, {report.pictures} pictures: {counts}")
