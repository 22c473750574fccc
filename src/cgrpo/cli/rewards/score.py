"""`cgrpo rewards score`."""

from __future__ import annotations

import argparse
import math
import sys

from cgrpo.cli.shared import add_settings, add_verb, new_file, path, write_json

EXAMPLES = """\
cgrpo rewards score --reference toy.png --prompt "a small toy in the snow" \\
    pictures/*.png --sheet scores.png
cgrpo rewards score --reward clip=openai/clip-vit-base-patch32 --prompt "a cat" pictures/*.png"""


def add(verbs: argparse._SubParsersAction) -> None:
    score = add_verb(verbs, "score", "a table of scores of pictures, best first", run, EXAMPLES)
    score.add_argument("images", type=path, nargs="+", metavar="IMAGE", help="pictures to score")
    score.add_argument(
        "--reward",
        action="append",
        default=[],
        metavar="NAME",
        help="a reward of the recipe, or TYPE=PATH; repeatable (default: all of the recipe)",
    )
    score.add_argument("--reference", type=path, nargs="+", default=[], metavar="FILE", help="pictures of the subject")
    score.add_argument("--prompt", default="", metavar="TEXT", help="what the pictures should show")
    score.add_argument("--subject", default="", metavar="WORD", help="what a segmenter looks for")
    score.add_argument("--recipe", default="toybox", help="where the rewards are described (default: toybox)")
    add_settings(score)
    score.add_argument("--sheet", type=path, metavar="FILE", help="also write the pictures in that order (PNG)")
    score.add_argument("--json", type=new_file, metavar="FILE", help="also write the table as JSON")


def run(options: argparse.Namespace) -> int:
    from cgrpo.commands.score import score
    from cgrpo.evaluation.show.table import Table, number
    from cgrpo.files import without_nan

    result = score(
        options.images,
        rewards=options.reward,
        references=options.reference,
        prompt=options.prompt,
        subject=options.subject,
        recipe=options.recipe,
        settings=options.settings,
        sheet=options.sheet,
    )
    for name, unit in result.units.items():
        print(f"{name}: {unit}")
    rows = [[str(path), *(number(value, 4) for value in row.values())] for path, row in result.rows]
    print("\n" + Table("Scores", "", ["", *result.units], rows, "l" + "r" * len(result.units)).text())
    if options.json:
        pictures = [{"picture": str(path), "scores": without_nan(row)} for path, row in result.rows]
        write_json(options.json, {"units": result.units, "pictures": pictures})
    failed = sum(math.isnan(value) for _, row in result.rows for value in row.values())
    if failed:
        print(f"cgrpo: {failed} of {len(rows) * len(result.units)} scores failed", file=sys.stderr)
    return 1 if failed else 0
