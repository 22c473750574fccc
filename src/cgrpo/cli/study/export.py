"""`cgrpo study export`."""

from __future__ import annotations

import argparse

from cgrpo.cli.shared import add_verb, path

EXAMPLES = """\
cgrpo study export study --to pairs --out pairs.jsonl
cgrpo study export ratings --to scores --out people
cgrpo study export study --to label-studio --url http://127.0.0.1:8099 --out for-label-studio"""


def add(verbs: argparse._SubParsersAction) -> None:
    export = add_verb(verbs, "export", "answers, to train on, for other statistics, or for Label Studio", run, EXAMPLES)
    export.add_argument("study", type=path, help="folder that cgrpo study create wrote; it may be served meanwhile")
    export.add_argument(
        "--to",
        choices=["pairs", "scores", "label-studio"],
        required=True,
        help="pairs: for method preference; scores: rows for cgrpo evaluate compare; label-studio: tasks and interface",
    )
    export.add_argument("--out", type=path, required=True, metavar="PATH", help="file of pairs, or a folder")
    export.add_argument(
        "--question",
        choices=["both", "identity", "prompt"],
        default="both",
        help="pairs: by which answers; both: better on one and no worse on the other (default)",
    )
    export.add_argument(
        "--url",
        default="http://127.0.0.1:8099",
        help="label-studio: where the study's pictures/ is served (default: http://127.0.0.1:8099)",
    )


def run(options: argparse.Namespace) -> None:
    from cgrpo.commands.study import export_label_studio, export_pairs, export_scores

    if options.to == "pairs":
        made = export_pairs(options.study, options.question, options.out)
        print(f"{options.out}: {made.written} pairs; {made.undecided} items undecided")
    elif options.to == "scores":
        print(f"{options.out}: {export_scores(options.study, options.out)} rows")
    else:
        count = export_label_studio(options.study, options.url, options.out)
        print(f"{options.out}: {count} tasks; serve {options.study / 'pictures'} at {options.url}, with CORS allowed")
