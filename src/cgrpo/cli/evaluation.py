"""What `cgrpo evaluate` does with its options, and how it says what came of it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cgrpo.commands.benchmark import EvaluationRequest, Outcome


def toybox(options: argparse.Namespace) -> int:
    from cgrpo.commands.benchmark import evaluate_toybox

    return _say_outcome(evaluate_toybox(_ask(options), options.subjects, options.prompts))


def dreambench(options: argparse.Namespace) -> int:
    from cgrpo.commands.benchmark import evaluate_dreambench

    return _say_outcome(evaluate_dreambench(options.data, _ask(options), options.list, tuple(options.subjects)))


def manifest(options: argparse.Namespace) -> int:
    from cgrpo.commands.benchmark import evaluate_manifest

    return _say_outcome(evaluate_manifest(options.manifest, _ask(options), options.root, options.limit))


def _ask(options: argparse.Namespace) -> EvaluationRequest:
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


def _say_outcome(outcome: Outcome) -> int:
    code = 1 if outcome.failed else 0
    if not outcome.is_main:  # another process says it
        return code
    suite, found = outcome.suite, outcome.summary
    photographs = suite.facts.get("photographs")
    print(f"{suite.name}: {len(suite.rows)} rows" + (f", photographs: {photographs['kind']}" if photographs else ""))
    columns = list(dict.fromkeys((row["metric"], row["protocol"]) for row in found))
    heads = [f"{metric} ({protocol})" if protocol in ("one", "all") else metric for metric, protocol in columns]
    means = {(row["method"], row["metric"], row["protocol"]): row["mean"] for row in found}
    print(" " * 20 + "".join(f"  {head:>8s}" for head in heads))
    for method in dict.fromkeys(row["method"] for row in found):
        print(f"{method:20s}", end="")
        for head, column in zip(heads, columns, strict=True):
            mean = means.get((method, *column))
            print("  " + ("-" if mean is None else f"{mean:.4f}").rjust(max(len(head), 8)), end="")
        print()
    print(f"scores: {outcome.scores}" + (f"; {outcome.failed} rows without a score" if outcome.failed else ""))
    return code


def compare(options: argparse.Namespace) -> None:
    from cgrpo.evaluation.pages.comparison import write_comparison

    print(write_comparison(options.folder, options.baseline, options.out))
