"""What comes next for a rater, and how far the study is for its administrator. No web framework in here.

Which method wins is not shown while the study runs.
"""

import csv
import io
from collections.abc import Mapping
from statistics import median
from typing import Any, NamedTuple

from cgrpo.study.manifest import Item, Shown, Study
from cgrpo.study.statistics.raters import agreement, judge_raters
from cgrpo.study.store import Rater, Store


class Lesson(NamedTuple):
    """A place in the tutorial, both counted from 1."""

    attempt: int
    position: int


class Outcome(NamedTuple):
    """Of a complete try at the tutorial."""

    correct: int
    graded: int
    passed: bool


class Course:
    """A study as raters go through it."""

    def __init__(self, study: Study, store: Store):
        self.study, self.store = study, store
        self.lessons = study.of_kind("tutorial")
        self._items = study.by_id()

    def list_of(self, rater: Rater) -> tuple[Shown, ...]:
        return self.study.lists[rater.number - 1]

    def item(self, rater: Rater, number: int) -> tuple[Item, bool] | None:
        """The rater's item, counted from 1, and whether its first picture is left; None where there is none."""
        shown = self.list_of(rater)
        if not 1 <= number <= len(shown):
            return None
        return self._items[shown[number - 1].item], shown[number - 1].first_on_left

    def next_number(self, rater: Rater) -> int | None:
        """The first item not yet answered; None at the end."""
        answered = self.store.answered(rater.number)
        return next((n for n, shown in enumerate(self.list_of(rater), 1) if shown.item not in answered), None)

    def next_page(self, rater: Rater) -> str:
        """Relative to the rater's own address."""
        if not rater.consented:
            return ""
        if not rater.passed:
            return "tutorial"
        number = self.next_number(rater)
        return "done" if number is None else f"items/{number}"

    def may_see(self, rater: Rater, picture: str) -> bool:
        """Whether a picture is one of the tutorial's or of the rater's own items."""
        own = [self._items[shown.item] for shown in self.list_of(rater)]
        return any(picture in item.pictures or picture in item.references for item in (*own, *self.lessons))

    def lesson(self, rater: Rater) -> Lesson:
        """Where the rater is in the tutorial; a failed try is followed by another."""
        tries = self.store.attempts(rater.number) or [[]]
        if len(tries[-1]) < len(self.lessons):
            return Lesson(len(tries), len(tries[-1]) + 1)
        return Lesson(len(tries) + 1, 1)

    def learn(self, rater: Rater, lesson: Lesson, answers: Mapping[str, str]) -> None:
        """Keep and grade a lesson's answers. Sides are as in the study's file: a lesson is the same for all."""
        item = self.lessons[lesson.position - 1]
        marks = [item.is_right(question, choice, True) for question, choice in answers.items()]
        graded = [mark for mark in marks if mark is not None]
        before = self.store.attempts(rater.number)[lesson.attempt - 1] if lesson.position > 1 else []
        correct = sum(right for right, _ in before) + sum(graded)
        total = sum(count for _, count in before) + len(graded)
        passed = lesson.position == len(self.lessons) and self._is_enough(correct, total)
        self.store.save_tutorial(rater.number, *lesson, answers, sum(graded), len(graded), passed)

    def outcome(self, rater: Rater, attempt: int) -> Outcome | None:
        """How a try came out; None while it is under way."""
        tries = self.store.attempts(rater.number)
        if attempt > len(tries) or len(tries[attempt - 1]) < len(self.lessons):
            return None
        correct, graded = (sum(column) for column in zip(*tries[attempt - 1], strict=True))
        return Outcome(correct, graded, self._is_enough(correct, graded))

    def _is_enough(self, correct: int, graded: int) -> bool:
        return correct >= self.study.rules.pass_mark * graded

    def valid(self, form: Mapping[str, str]) -> dict[str, str]:
        """The answers in a form that are answers."""
        questions = {question.id for question in self.study.questions}
        return {key: value for key, value in form.items() if key in questions and value in self.study.choices}


def progress(study: Study, store: Store) -> dict[str, Any]:
    """What the page shows."""
    responses = store.responses()
    judged = {one.number: one for one in judge_raters(study, responses)}
    rows = []
    for rater in store.raters():
        tries = store.attempts(rater.number)
        total = len(study.lists[rater.number - 1]) if rater.number <= len(study.lists) else None
        answered, one = len(store.answered(rater.number)), judged.get(rater.number)
        rows.append(
            {
                "number": rater.number,
                "origin": rater.origin,
                "state": _state(rater, answered == total),
                "tries": len(tries),
                "answered": answered,
                "total": total,
                "seconds": one.seconds if one else None,
                "last": max((r.answered_at for r in responses if r.rater == rater.number), default=""),
            }
        )
    answered = sum(row["answered"] for row in rows)
    total = sum(map(len, study.lists))
    alphas = [(q.id, agreement(study, responses, q.id)) for q in study.questions]
    seconds = [row["seconds"] for row in rows if row["seconds"] is not None]
    return {
        "study": study,
        "rows": rows,
        "answered": answered,
        "total": total,
        "alphas": alphas,
        "seconds": median(seconds) if seconds else None,
    }


def _state(rater: Rater, is_done: bool) -> str:
    if is_done:
        return "finished"
    return "answering" if rater.passed else "in the tutorial" if rater.consented else "not begun"


def answers_csv(store: Store) -> str:
    """All live answers, by opaque ids: methods stay in study.json, out of any browser."""
    sheet = io.StringIO()
    writer = csv.writer(sheet)
    head = ("rater", "item", "question", "choice", "first_on_left", "revision", "shown_at", "answered_at")
    writer.writerow(head)
    for one in store.responses():
        times = (one.shown_at or "", one.answered_at)
        writer.writerow((one.rater, one.item, one.question, one.choice, int(one.first_on_left), one.revision, *times))
    return sheet.getvalue()
