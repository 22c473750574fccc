"""A report's tables."""

import math
from collections.abc import Sequence
from typing import Any

from cgrpo.evaluation.show.table import DASH, Cell, Table, number, p_value
from cgrpo.statistics import Interval
from cgrpo.study.manifest import TIE
from cgrpo.study.report.findings import Findings
from cgrpo.study.statistics.comparisons import LOSS, WIN, Shares
from cgrpo.study.statistics.intervals import FEWEST

PAPER = {"identity": (54, 25, 21), "prompt": (50, 28, 22)}  # Figure 5, in percent; ties are what is left to 100
NAMES = {"identity": "identity", "prompt": "prompt and quality"}
CLUSTERS = ("items", "subjects", "raters")
PAPER_ROW = "the paper, Figure 5"


def tables(findings: Findings) -> list[Table]:
    """In the order in which they are read."""
    shown = [_shares(findings.shares, "Wins, ties and losses", _counted(findings))] if findings.shares else []
    shown += [_scale(findings)] if findings.scale else []
    shown += [_means(findings)] if findings.means else []
    shown += [_agreement(findings), _raters(findings)]
    if findings.all_shares:
        note = "The same with every rater, for comparison; the rule was fixed before anyone answered."
        shown.append(_shares(findings.all_shares, "Without the exclusion rule", note, paper=False))
    return shown


def percent(value: float) -> str:
    return f"{number(100 * value, 1)} %" if math.isfinite(value) else DASH


def percents(interval: Interval) -> str:
    return _span(Interval(100 * interval.low, 100 * interval.high), 1)


def _span(interval: Interval, digits: int = 2, signed: bool = False) -> str:
    if math.isnan(interval.low):
        return DASH
    return f"{number(interval.low, digits, signed)} to {number(interval.high, digits, signed)}"


def pair_name(one: Shares) -> str:
    return f"{one.method} against {one.baseline}"


def _counted(findings: Findings) -> str:
    study = findings.study
    out = sum(one.excluded for one in findings.raters)
    return (
        f"{findings.kept_answers} answers (checks among them) of {len(findings.raters) - out} raters; excluded by the "
        f"rule: {out}. Planned: {study.raters_per_item} raters an item. Win rate: wins and half of the ties. "
        "Intervals are of 95 %: over items for these subjects, over subjects for others like them, over raters for "
        "others like these. p: of a win rate of one half, over subjects, by exact sign flips. With fewer than "
        f"{FEWEST} of them there is no interval. Not corrected for several rows. In the paper Customized-GRPO stands "
        "against UNO."
    )


def _shares(comparisons: Sequence[Shares], title: str, note: str, paper: bool = True) -> Table:
    rows: list[list[str | Cell]] = []
    for question in dict.fromkeys(one.question for one in comparisons):
        rows += [_row(one) for one in comparisons if one.question == question]
        if paper and question in PAPER:
            win, tie, loss = PAPER[question]
            shares = [f"{share} %" for share in (win, tie, loss)]
            rate = f"{number(win + tie / 2, 1)} %"
            rows.append([_dot(question), PAPER_ROW, DASH, *shares, rate, DASH, DASH, DASH, DASH])
    head = [
        "Question",
        "",
        "votes",
        "win",
        "tie",
        "loss",
        "win rate",
        "over items",
        "over subjects",
        "over raters",
        "p",
    ]
    return Table(title, note, head, rows, "llrrrrrrrrr")


def _row(one: Shares) -> list[str | Cell]:
    sure = one.win_rate_subjects
    tone = "rose" if sure.above(0.5) else "fell" if sure.below(0.5) else ""
    return [
        _dot(one.question),
        pair_name(one),
        str(one.votes),
        *(percent(one.share[outcome]) for outcome in (WIN, TIE, LOSS)),
        Cell(percent(one.win_rate), tone),
        percents(one.win_rate_items),
        percents(one.win_rate_subjects),
        percents(one.win_rate_raters),
        p_value(one.win_rate_subjects.p),
    ]


def _dot(question: str) -> Cell:
    return Cell(NAMES.get(question, question), dot=question)


def _scale(findings: Findings) -> Table:
    rows: list[list[str | Cell]] = [
        [_dot(one.question), method, number(strength, 2, True), _span(one.intervals[method], signed=True)]
        for one in findings.scale
        for method, strength in sorted(one.strengths.items(), key=lambda pair: -pair[1])
    ]
    note = "Log-strengths of Bradley and Terry's model with ties (Davidson 1970), mean 0; intervals over items."
    return Table("All methods on one scale", note, ["Question", "Method", "strength", "95 %"], rows, "llrr")


def _means(findings: Findings) -> Table:
    rows: list[list[str | Cell]] = [
        [
            _dot(one.question),
            one.method,
            str(one.items),
            number(one.mean, 2),
            _span(one.over_items),
            _span(one.over_subjects),
        ]
        for one in findings.means
    ]
    head = ["Question", "Method", "pictures", "mean", "over items", "over subjects"]
    return Table("Mean ratings, 0 to 5", "Intervals of 95 %, by sign flips of items or subjects.", head, rows, "llrrrr")


def _agreement(findings: Findings) -> Table:
    rows: list[list[str | Cell]] = [
        [
            _dot(one.question),
            number(one.nominal, 3),
            number(one.ordinal, 3),
            number(one.one_rater, 3),
            number(one.mean, 3),
            number(one.ceiling, 3),
        ]
        for one in findings.agreement
    ]
    note = (
        "Krippendorff's alpha: 1 is perfect, 0 chance; undefined where all answers are equal. Ordinal orders loss, tie "
        "and win, or 0 to 5. Two raters: the correlation within an item, assumed 0.3 by the power line. Reliability is "
        "that of an item's mean; nothing can correlate with the mean more than its square root."
    )
    head = ["Question", "alpha, nominal", "alpha, ordinal", "two raters", "reliability", "ceiling"]
    return Table("Agreement", note, head, rows, "lrrrrr")


def _raters(findings: Findings) -> Table:
    rules = findings.study.rules
    rows: list[list[str | Cell]] = [
        [
            findings.origins.get(one.number, str(one.number)),
            str(one.answered),
            str(one.corrected),
            f"{one.failed} of {one.checks}",
            number(one.seconds, 1),
            *([_left(findings.side_by_rater.get(one.number))] if findings.side else []),
            Cell("excluded", "fell") if one.excluded else "",
        ]
        for one in findings.raters
    ]
    note = (
        f"Fixed beforehand: more than {rules.failed_at_most} of {rules.checks} checks failed exclude a rater; one who "
        f"answers at random passes with probability {number(rules.chance_to_pass, 3)}."
    )
    head = ["Rater", "pages", "corrected", "checks failed", "seconds a page"]
    if findings.side:
        head.append("left")
        note += (
            " Left: how often that side was chosen where one was, with its exact 95 % interval; by all raters "
            f"{_left(findings.side)} of {findings.side['chosen']} times."
        )
    return Table("Raters", note, [*head, ""], rows, "l" + "r" * (len(head) - 1) + "l")


def _left(side: dict[str, Any] | None) -> str:
    if not side or not side["chosen"]:
        return DASH
    return f"{percent(side['left'])} ({number(100 * side['low'], 0)} to {number(100 * side['high'], 0)})"
