"""Rewards beside mean ratings: tables, a plot and a page (the paper's Table 6)."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from matplotlib.figure import Figure

from cgrpo.errors import UserError
from cgrpo.evaluation.show import plots
from cgrpo.evaluation.show.page import Block, Page, Plots, Section, Text
from cgrpo.evaluation.show.table import DASH, Cell, Table, interval, number
from cgrpo.files import json_text, write_text, writing
from cgrpo.scores import read_scores
from cgrpo.statistics import Interval
from cgrpo.study import dreambench_plus
from cgrpo.study.manifest import read_study
from cgrpo.study.report.tables import NAMES
from cgrpo.study.report.write import read_answers
from cgrpo.study.statistics.alignment import DRAWS, QuestionAlignment, align
from cgrpo.study.statistics.raters import kept, rated

# Table 6: Pearson and Spearman with the mean rating of three experts, 200 pictures. Identity, prompt following.
PAPER = {
    "identity": {
        "CLIP-I": (0.37, 0.48), "DINO": (0.42, 0.65), "Qwen-VL-Max": (0.27, 0.42), "GPT-4o-0816": (0.38, 0.63),
        "Gemini-2.5-Pro": (0.49, 0.68), "DINO-Seg": (0.60, 0.75),
    },
    "prompt": {
        "CLIP-T": (0.38, 0.51), "Qwen-VL-Max": (0.41, 0.57), "GPT-4o-0816": (0.52, 0.69),
        "Gemini-2.5-Pro": (0.57, 0.72), "HPS-V3": (0.62, 0.76),
    },
}  # fmt: skip
TITLE = "Which reward sees what people see"


def find_alignment(folder: Path, scores: Path | None = None) -> list[QuestionAlignment]:
    """Of a rating study in ``folder`` and the rows in ``scores`` (default: those that it was made from), by question;
    questions without an answer are left out. Raters whom the rule excludes don't count. ``folder`` may hold
    DreamBench++'s ratings instead; GPT-4o's then count as a metric. Raises UserError."""
    if dreambench_plus.is_ratings(folder):
        more = read_scores(scores) if scores else []
        published = dreambench_plus.as_study(dreambench_plus.read_ratings(folder))
        return [align(rated, [*rows, *more], question, question) for question, rated, rows in published if rated]
    study = read_study(folder)
    if study.mode != "rating":
        raise UserError(f"{folder}: pictures were compared, not rated; make a study with --mode rating for this")
    rows = read_scores(scores or Path(study.source["scores"]))
    if not rows:
        raise UserError(f"{scores or study.source['scores']}: no scores; give the --out of cgrpo evaluate as --scores")
    answers = kept(study, read_answers(folder))
    results = []
    for question in study.questions:
        ratings = rated(study, answers, question.id)
        if ratings:
            results.append(align(ratings, rows, question.id, question.id))
    if not results:
        raise UserError(f"{folder}: no rating counts; nobody has answered yet, or all raters are excluded")
    if not any(one.alignments for one in results):
        raise UserError(f"{folder}: no rated picture has a score; give the --out of cgrpo evaluate as --scores")
    return results


def write_alignment(folder: Path, scores: Path | None, out: Path) -> Path:
    """alignment.json, .md and .html in ``out``; returns the page. Raises UserError."""
    results = find_alignment(folder, scores)
    shown = [*map(_table, results), *(_differences(one) for one in results if one.differences), paper_table()]
    published = dreambench_plus.read_ratings(folder) if dreambench_plus.is_ratings(folder) else []
    agreements = [dreambench_plus.agreement(one) for one in published]
    shown += [_agreement_table(question, agreements) for question in dreambench_plus.QUESTIONS if agreements]
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        table = {"draws": DRAWS, "questions": [asdict(one) for one in results]}
        table |= {"agreement": [asdict(one) for one in agreements]} if agreements else {}
        write_text(out / "alignment.json", json_text(table, indent=1, ensure_ascii=False) + "\n")
        write_text(out / "alignment.md", "\n\n".join([f"# {TITLE}", *(one.markdown() for one in shown)]) + "\n")
        write_text(out / "alignment.html", _page(results, shown).render())
    return out / "alignment.html"


def _page(results: Sequence[QuestionAlignment], shown: Sequence[Table]) -> Page:
    words = "Spearman's correlation with the mean rating, and its 95 % interval. Dashed: the most that raters allow."
    drawn = [plots.svg(_figure(one), one.question, NAMES.get(one.question, one.question)) for one in results]
    first: list[Block] = [Text(words, "muted"), Plots(drawn)]
    sections = [Section("spearman", "At a glance", first)]
    sections += [Section(f"table-{n}", table.title, table.noted()) for n, table in enumerate(shown)]
    return Page(TITLE, [], sections, wide=True)


def _table(result: QuestionAlignment) -> Table:
    rows: list[list[str | Cell]] = [
        [
            Cell(one.metric, dot=result.question),
            f"{one.pictures}" + (f" ({one.unscored} without)" if one.unscored else ""),
            number(one.pearson, 2, True),
            _span(one.intervals["pearson"]),
            number(one.spearman, 2, True),
            _span(one.intervals["spearman"]),
            number(one.kendall, 2, True),
            _span(one.intervals["kendall"]),
            number(one.within, 2, True),
            _span(one.within_interval) if one.pairs else DASH,
        ]
        for one in result.alignments
    ]
    note = (
        f"With the mean of {number(result.raters, 1)} ratings a picture. Reliability of that mean "
        f"{number(result.reliability, 2)}: no correlation with it can be expected above its square root, "
        f"{number(result.ceiling, 2)}. Intervals of 95 % by {DRAWS} bootstraps over pictures; within prompts: "
        "differences from the mean of the same subject and prompt, bootstrapped over those."
    )
    head = ["Metric", "pictures", "Pearson", "95 %", "Spearman", "95 %", "Kendall", "95 %", "within prompts", "95 %"]
    return Table(NAMES.get(result.question, result.question).capitalize(), note, head, rows, "lrrrrrrrrr")


def _differences(result: QuestionAlignment) -> Table:
    rows: list[list[str | Cell]] = [
        [
            one.better,
            one.worse,
            str(one.pictures),
            Cell(number(one.difference, 2, True), "rose" if one.interval.low > 0 else ""),
            _span(one.interval),
        ]
        for one in result.differences
    ]
    note = "Difference of the two Spearman correlations, on the same bootstrapped pictures."
    title = f"{NAMES.get(result.question, result.question).capitalize()}: the best beside the others"
    return Table(title, note, ["Best", "Other", "pictures", "difference", "95 %"], rows, "llrrr")


def _agreement_table(question: str, agreements: Sequence[dreambench_plus.Agreement]) -> Table:
    """DreamBench++'s agreement of people and GPT-4o, method by method, beside the published figures."""
    rows: list[list[str | Cell]] = []
    for one in (one for one in agreements if one.question == question):
        printed = dreambench_plus.PUBLISHED.get(one.method) if question == "identity" else None
        people, gpt, spread = printed or (math.nan, math.nan, math.nan)
        rows.append(
            [
                one.method,
                str(one.pictures),
                number(one.alpha_people),
                _give_or_take(one.alpha_gpt, one.alpha_gpt_spread),
                number(one.pearson_people),
                _give_or_take(one.pearson_gpt, one.pearson_gpt_spread),
                number(people),
                _give_or_take(gpt, spread),
            ]
        )
    note = (
        "Krippendorff's alpha of intervals and Pearson's correlation, between the groups of people and of GPT-4o with "
        "a group, by DreamBench++'s own arithmetic. Published: Pearson's, of concept preservation alone."
    )
    pair = ["people", "GPT-4o"]
    head = ["Method", "pictures", *(f"{kind}, {who}" for kind in ("alpha", "Pearson", "published") for who in pair)]
    return Table(f"DreamBench++: agreement on {NAMES.get(question, question)}", note, head, rows, "lrrrrrrr")


def _give_or_take(value: float, spread: float) -> str:
    return number(value) + (f" \N{PLUS-MINUS SIGN} {number(spread)}" if math.isfinite(spread) else "")


def paper_table() -> Table:
    names = list(dict.fromkeys(name for question in PAPER.values() for name in question))
    rows: list[list[str | Cell]] = []
    for name in names:
        printed = [PAPER[question].get(name, (math.nan, math.nan)) for question in ("identity", "prompt")]
        rows.append([name, *(number(value, 2) for pair in printed for value in pair)])
    note = "As printed: 200 pictures, three experts, without intervals or the raters' reliability."
    head = ["Reward", "identity: Pearson", "Spearman", "prompt: Pearson", "Spearman"]
    return Table("The paper's Table 6", note, head, rows, "lrrrr")


def _span(span: Interval) -> str:
    return interval(span.low, span.high, 2)


def _figure(result: QuestionAlignment) -> Figure:
    figure, axes = plots.canvas(NAMES.get(result.question, result.question), (5.2, 1.1 + 0.34 * len(result.alignments)))
    axes.grid(visible=False)
    axes.axvline(0, color=plots.RULE, linewidth=0.8)
    if math.isfinite(result.ceiling):
        axes.axvline(result.ceiling, color=plots.MUTED, linewidth=1, linestyle="--")
    colour = plots.axis_colour(result.question)
    for row, one in enumerate(result.alignments):
        span = one.intervals["spearman"]
        axes.plot([span.low, span.high], [row, row], color=colour, linewidth=2)
        axes.plot([one.spearman], [row], "o", color=colour, markersize=6)
    axes.set_yticks(range(len(result.alignments)), [one.metric for one in result.alignments])
    axes.set_ylim(len(result.alignments) - 0.5, -0.5)
    lows = [one.intervals["spearman"].low for one in result.alignments]
    axes.set_xlim(min([-0.1, *filter(math.isfinite, lows)]) - 0.02, 1)
    return figure
