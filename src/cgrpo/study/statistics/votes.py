"""Answers as votes for methods: which of two won, whichever side it stood on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cgrpo.study.manifest import FIRST, LEFT, SECOND, TIE, Study, preferred
from cgrpo.study.store import Response

WIN, LOSS = "win", "loss"
_OUTCOMES = {FIRST: LOSS, TIE: TIE, SECOND: WIN}  # the second picture's method against the first's


@dataclass(frozen=True)
class Vote:
    """``outcome`` "win": ``method`` was preferred to ``baseline``; ``left``: which side was chosen, None for a tie."""

    rater: int
    item: str
    subject: str
    question: str
    baseline: str
    method: str
    outcome: str
    left: bool | None


def votes_of(study: Study, responses: Iterable[Response]) -> list[Vote]:
    """Votes on real items of a pairwise study."""
    items = study.by_id()
    votes = []
    for one in responses:
        item = items[one.item]
        if item.kind == "item":
            outcome = _OUTCOMES[preferred(one.choice, one.first_on_left)]
            left = None if one.choice == TIE else one.choice == LEFT
            first, second = (arm.method for arm in item.arms)
            votes.append(Vote(one.rater, item.id, item.subject, one.question, first, second, outcome, left))
    return votes
