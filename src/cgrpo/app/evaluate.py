"""`cgrpo evaluate`: score a run, the base, or any pictures on an evaluation set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from cgrpo.app.options import BaseRecipe, File, Files, Finite, Folder, Many, Settings, Whole, command, group
from cgrpo.app.requests import METRICS, AdapterRequest, BestAdapter, EvaluationRequest, Outcome


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


def evaluate_adapters(
    paths: Files,
    /,
    *,
    data: Annotated[str, Parameter(metavar="FILE")] = "toybox",
    out: Folder,
    limit: Whole = 0,
    skip: Whole = 0,
    seeds: Many = 2,
    metrics: Annotated[Sequence[str], Parameter(name="--metric", metavar="NAME", help=METRICS)] = (),
    without_references: bool = False,
    strengths: bool = False,
    watch: Annotated[Finite | None, Parameter(metavar="MINUTES")] = None,
    recipe: BaseRecipe = "toybox",
    settings: Settings = (),
) -> BestAdapter:
    """Which adapter of a series is best, and what is wrong with the others.

    Args:
        paths: adapter files of any trainer, folders of them, or a run directory
        data: held-out tasks: a manifest or a folder as for cgrpo evaluate manifest, or toybox
        out: pictures, scores and the page; with the same folder again only new adapters are drawn
        limit: only the first N tasks; 0 for all, of the toy world 24
        skip: leave out N tasks before these, to judge the best one on tasks that it was not chosen on
        seeds: pictures per task, 2 or more
        without_references: draw from the prompt alone, for adapters that learnt the subject itself
        strengths: try the best adapter at 0.6, 0.8 and 1.2, too
        watch: score adapters as they appear, until none has for so long, or three in a row got worse

    Returns:
        The ranking, the best adapter's copy, the page, and why files were not read.

    Raises:
        UserError: no adapter can be read, or ``out`` holds pictures of another base or other tasks.
    """
    from cgrpo.app.checkpoints import find_best

    request = AdapterRequest(
        [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)],
        Path(out),
        str(data),
        limit=limit,
        skip=skip,
        seeds=seeds,
        metrics=metrics,
        references=not without_references,
        strengths=strengths,
        watch=watch,
        recipe=recipe,
        settings=settings,
    )
    return find_best(request)


def show_best(result: BestAdapter) -> int:
    """Print the table and the sentence; 1 where no adapter is fit."""
    from cgrpo.evaluation.pages.adapters import sentence_of, strength_of, table_of

    ranking = result.ranking
    if result.is_main:
        print(table_of(ranking).text(), "", sentence_of(ranking), sep="\n")
        if result.strengths and ranking.best:
            print(strength_of(result.strengths, ranking.best))
        print(f"page: {result.page}" + (f"; best adapter: {result.file}" if result.file else ""))
    return 0 if ranking.best else 1


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
    published = suite.facts.get("published rows")
    known = f" of {published} published" if published else ""
    known += f", photos: {photographs['kind']}" if photographs else ""
    print(f"{suite.name}: {len(suite.rows)} rows{known}")
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
ADAPTER_EXAMPLES = """\
cgrpo evaluate adapters outputs/naive-1 --out best
cgrpo evaluate adapters ai-toolkit/output/dog --data dog.heldout.json \\
    --recipe klein --without-references --out best
cgrpo evaluate adapters ai-toolkit/output/dog --data dog.heldout.json \\
    --recipe klein --without-references --out best --watch 60"""
COMPARE_EXAMPLES = "cgrpo evaluate compare dreambench-scores --baseline uno --out comparison"

app = group(
    "evaluate",
    "Score a run, the base, or any pictures on an evaluation set.",
    command("toybox", evaluate_toybox, TOYBOX_EXAMPLES, show_outcome),
    command("dreambench", evaluate_dreambench, DREAMBENCH_EXAMPLES, show_outcome),
    command("manifest", evaluate_manifest, MANIFEST_EXAMPLES, show_outcome),
    command("adapters", evaluate_adapters, ADAPTER_EXAMPLES, show_best),
    command("compare", compare, COMPARE_EXAMPLES, show_comparison),
)
