"""The administrator's page: how far it is, and whether raters agree. Which method wins is not told while it runs."""

from __future__ import annotations

import csv
import io
from statistics import median
from typing import Any

from cgrpo.study.manifest import Study
from cgrpo.study.statistics.agreement import agreement
from cgrpo.study.statistics.checks import judge_raters
from cgrpo.study.store import Rater, Store


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
