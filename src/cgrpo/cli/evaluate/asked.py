"""What all benchmarks are asked, and how it is said what came of it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from cgrpo.cli.shared import RUN, add_settings, listed, path, seed

if TYPE_CHECKING:
    from cgrpo.commands.benchmark import EvaluationRequest, Outcome


def add_benchmark(bench: argparse.ArgumentParser) -> None:
    """The options that all of them have."""
    bench.add_argument("run", nargs="?", type=path, help=RUN)
    bench.add_argument(
        "--out",
        type=path,
        required=True,
        metavar="DIR",
        help="pictures and scores; the same folder again goes on where it ended",
    )
    bench.add_argument("--seeds", type=listed, default=4, metavar="N", help="pictures a prompt (default: 4)")
    bench.add_argument(
        "--first-seed", type=seed, default=3407, metavar="S", help="the first (default: 3407, as the paper's code)"
    )
    bench.add_argument("--images", type=path, metavar="DIR", help="score these instead of generating")
    bench.add_argument(
        "--layout",
        default="rows",
        metavar="NAMES",
        help="their names: rows (SUBJECT/PP_SEED.png), uno (ROW_IMAGE.png), or a template such as "
        "{subject}/{slug}/{image} of subject, word, index, prompt, slug, row, image, seed",
    )
    bench.add_argument("--method", default="", metavar="NAME", help="name of the rows (default: the folder's)")
    bench.add_argument(
        "--metric",
        action="append",
        default=[],
        metavar="NAME",
        help="TYPE or TYPE=PATH (dino, clip-i, clip, hpsv3, dino-seg, ...), a reward of the recipe, copy_paste, "
        "brightness, edge_density, saturation, or a judge of the toy world; repeatable (default: dino, clip-i, clip; "
        "for the toy world its rewards and judges)",
    )
    bench.add_argument(
        "--protocol",
        action="append",
        choices=["one", "all"],
        default=[],
        help="what identity is scored against: the one reference of a subject (default), the mean over all its "
        "photographs, or, repeated, both",
    )
    bench.add_argument("--recipe", default="toybox", help="describes the base, unless a run directory does")
    add_settings(bench)


def request(options: argparse.Namespace) -> EvaluationRequest:
    """The options that all of them have, as the commands take them."""
    from cgrpo.commands.benchmark import EvaluationRequest

    return EvaluationRequest(
        options.out,
        run=options.run,
        images=options.images,
        layout=options.layout,
        method=options.method,
        recipe=options.recipe,
        settings=options.settings,
        metrics=options.metric,
        protocols=options.protocol or ("one",),
        seeds=options.seeds,
        first_seed=options.first_seed,
    )


def say_outcome(outcome: Outcome) -> int:
    """Prints the table; returns the exit code."""
    from cgrpo.evaluation.show.table import Table, number
    from cgrpo.scores import Column

    code = 1 if outcome.failed else 0
    if not outcome.is_main:  # another process says it
        return code
    suite, found = outcome.suite, outcome.summary
    photographs = suite.facts.get("photographs")
    print(f"{suite.name}: {len(suite.rows)} rows" + (f", photographs: {photographs['kind']}" if photographs else ""))
    means = {
        (row["method"], Column(row["metric"], row["protocol"], row.get("reference"))): row["mean"] for row in found
    }
    methods, columns = (list(dict.fromkeys(keys)) for keys in zip(*means, strict=True))
    rows = [[method, *(number(means.get((method, column)), 4) for column in columns)] for method in methods]
    head = ["", *(column.label for column in columns)]
    print(Table("Means", "", head, rows, "l" + "r" * len(columns)).text())
    print(f"scores: {outcome.scores}" + (f"; {outcome.failed} rows without a score" if outcome.failed else ""))
    return code
