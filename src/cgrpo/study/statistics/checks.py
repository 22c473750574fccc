"""Raters judged by the rule that was fixed before they answered."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from statistics import median

from cgrpo.study.manifest import Study
from cgrpo.study.store import Response


@dataclass(frozen=True)
class Judged:
    """A rater: pages answered, checks answered and failed, whether the rule excludes them, median seconds a page
    (of first answers; None where no showing was recorded), and answers given anew later."""

    number: int
    answered: int
    checks: int
    failed: int
    excluded: bool
    seconds: float | None
    corrected: int


def judge_raters(study: Study, responses: Iterable[Response]) -> list[Judged]:
    """In order of their numbers. A check is failed if any of its golds is missed."""
    by_rater: dict[int, list[Response]] = defaultdict(list)
    for one in responses:
        by_rater[one.rater].append(one)
    return [_judge(study, number, by_rater[number]) for number in sorted(by_rater)]


def _judge(study: Study, number: int, own: list[Response]) -> Judged:
    items = study.by_id()
    marks: dict[str, bool] = {}
    for one in own:
        item = items[one.item]
        right = item.is_right(one.question, one.choice, one.first_on_left) if item.kind == "check" else None
        if right is not None:
            marks[one.item] = marks.get(one.item, True) and right
    failed = sum(not right for right in marks.values())
    pages = {one.item: one for one in own}
    seconds = [
        (datetime.fromisoformat(one.answered_at) - datetime.fromisoformat(one.shown_at)).total_seconds()
        for one in pages.values()
        if one.shown_at and one.revision == 1
    ]
    return Judged(
        number,
        len(pages),
        len(marks),
        failed,
        failed > study.rules.failed_at_most,
        median(seconds) if seconds else None,
        sum(one.revision > 1 for one in pages.values()),
    )


def kept(study: Study, responses: Iterable[Response]) -> list[Response]:
    """Answers of raters that the rule does not exclude."""
    responses = list(responses)
    out = {one.number for one in judge_raters(study, responses) if one.excluded}
    return [one for one in responses if one.rater not in out]
