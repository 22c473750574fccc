"""`cgrpo evaluate`: score a run, the base, or any pictures on an evaluation set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from cgrpo.app.options import File, Folder, Many, Whole, command, group
from cgrpo.app.requests import EvaluationRequest, Outcome


def evaluate_toybox(request: EvaluationRequest, *, subjects: Many = 30, prompts: Many = 25) -> Outcome:
    """The toy world's held-out subjects and prompts.

    Args:
        subjects: held-out subjects
        prompts: prompts per subject
    """
    from cgrpo.app.benchmark import run_toybox

    return run_toybox(request, subjects, prompts)


def evaluate_dreambench(
    request: EvaluationRequest,
    *,
    data: Folder,
    suite: Annotated[Literal["single", "multi"], Parameter(name="--list")] = "single",
    subjects: Annotated[Sequence[str], Parameter(consume_multiple=True, metavar="NAME")] = (),
) -> Outcome:
    """DreamBench: generate and score, or score pictures of any system.

    Args:
        data: the photos, SUBJECT/NN.jpg
        suite: the official list
        subjects: some of its subjects (default: all)
    """
    from cgrpo.app.benchmark import OFFICIAL, run_benchmark
    from cgrpo.evaluation.benchmark.dreambench import dreambench_suite

    return run_benchmark(dreambench_suite(data, suite, subjects), request, tuple(OFFICIAL))


def evaluate_manifest(
    manifest: File, /, request: EvaluationRequest, *, root: Folder | None = None, limit: Whole = 0
) -> Outcome:
    """References and prompts of your own.

    Args:
        manifest: a data set: a manifest, a folder, or an archive
        root: where the pictures are, if not next to the manifest
        limit: only the first N rows; 0 for all
    """
    from cgrpo.app.benchmark import OFFICIAL, run_benchmark
    from cgrpo.evaluation.benchmark.suite import manifest_suite

    return run_benchmark(manifest_suite(manifest, root, limit), request, tuple(OFFICIAL))


def compare(
    folder: Folder, /, *, baseline: Annotated[str | None, Parameter(metavar="METHOD")] = None, out: Folder
) -> Path:
    """Methods scored into one folder: intervals, tests, tables, a page.

    Args:
        folder: the --out of cgrpo evaluate
        baseline: what the others are compared with (default: base)
        out: folder for tables, figures and page
    """
    from cgrpo.evaluation.pages.comparison import write_comparison

    return write_comparison(folder, baseline, out)


def show_comparison(page: Path) -> None:
    """Print the verdicts, and where the page is."""
    print(*json.loads((page.parent / "comparison.json").read_text(encoding="utf-8"))["verdicts"], sep="\n")
    print(f"page: {page}")


def show_outcome(outcome: Outcome) -> int:
    """Print the table of means; 1 if a row has no score."""
    from cgrpo.evaluation.show.table import Table, number
    from cgrpo.scores import Column

    code = 1 if outcome.failed else 0
    if not outcome.is_main:
        return code
    suite, photographs = outcome.suite, outcome.suite.facts.get("photographs")
    print(f"{suite.name}: {len(suite.rows)} rows" + (f", photographs: {photographs['kind']}" if photographs else ""))
    means = {
        (row["method"], Column(row["metric"], row["protocol"], row.get("reference"))): row["mean"]
        for row in outcome.summary
    }
    methods, columns = (list(dict.fromkeys(keys)) for keys in zip(*means, strict=True))
    rows = [[method, *(number(means.get((method, column)), 4) for column in columns)] for method in methods]
    head = ["", *(column.label for column in columns)]
    print(Table("Means", "", head, rows, "l" + "r" * len(columns)).text())
    print(f"scores: {outcome.scores}" + (f"; {outcome.failed} rows without a score" if outcome.failed else ""))
    return code


TOYBOX_EXAMPLES = """\
cgrpo evaluate toybox --out toybox-scores
cgrpo evaluate toybox outputs/naive-1 --out toybox-scores
cgrpo evaluate toybox outputs/naive-1 --subjects 8 --prompts 5 --seeds 1 \\
    --out quick"""
DREAMBENCH_EXAMPLES = """\
cgrpo evaluate dreambench outputs/paper --data dreambench \\
    --out dreambench-scores
cgrpo evaluate dreambench --images uno-pictures --layout uno --method uno \\
    --data dreambench --out dreambench-scores
cgrpo evaluate dreambench --images theirs \\
    --layout "{subject}/{prompt}/{image}" \\
    --data dreambench --out scores --metric dino --metric clip --metric hpsv3 \\
    --protocol one --protocol all"""
MANIFEST_EXAMPLES = """\
cgrpo evaluate manifest my-subjects.json outputs/paper --out my-scores
cgrpo evaluate manifest my-subjects.json --images theirs --method theirs \\
    --out my-scores"""
COMPARE_EXAMPLES = "cgrpo evaluate compare dreambench-scores --baseline uno --out comparison"

app = group(
    "evaluate",
    "Score a run, the base, or any pictures on an evaluation set.",
    command("toybox", evaluate_toybox, TOYBOX_EXAMPLES, show_outcome),
    command("dreambench", evaluate_dreambench, DREAMBENCH_EXAMPLES, show_outcome),
    command("manifest", evaluate_manifest, MANIFEST_EXAMPLES, show_outcome),
    command("compare", compare, COMPARE_EXAMPLES, show_comparison),
)
