"""From people back to training: preference pairs for method "preference", and people's verdicts as rows of scores."""

from __future__ import annotations

import itertools
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgrpo.errors import UserError
from cgrpo.files import json_text, write_text, writing
from cgrpo.scores import ScoreRow, write_description, write_scores
from cgrpo.study.manifest import PICTURES, TIE, Item, Study, preferred
from cgrpo.study.store import Response

BOTH = "both"
PREFIX = "people-"  # of metrics that are people's


@dataclass(frozen=True)
class Pairs:
    """written: pairs; undecided: items on which votes, or ratings, were equal or the questions contradict."""

    written: int
    undecided: int


def write_pairs(study: Study, folder: Path, answers: Sequence[Response], question: str, out: Path) -> Pairs:
    """Pairs of a preferred and another picture as JSON lines, as ``preference.pairs`` takes them.

    ``question``: "identity", "prompt", or "both": better on one and no worse on the other. Of a comparison the picture
    with more votes wins; of ratings, among the pictures of one prompt, the one with the higher mean. Pictures are the
    study's own, relative to ``out``. Raises UserError where nobody decided anything, or ``out`` can't be written.
    """
    asked = [one.id for one in study.questions] if question == BOTH else [question]
    gaps = _vote_gaps(study, answers) if study.mode == "pairwise" else _rating_gaps(study, answers)
    home, lines, undecided = out.resolve().parent, [], 0
    for first, second, gap in gaps:
        signs = {(value > 0) - (value < 0) for value in (gap.get(one, 0.0) for one in asked)}
        if not signs - {0} or {1, -1} <= signs:
            undecided += 1
            continue
        winner, loser = (second, first) if 1 in signs else (first, second)
        lines.append(_line(winner, loser, {one: abs(gap.get(one, 0.0)) for one in asked}, folder, home))
    if not lines:
        raise UserError(f"{folder}: no pair on which people decided; ask more of them, or about one --question")
    _write(out, lines)
    return Pairs(len(lines), undecided)


Place = tuple[Item, int]  # an item, and which of its pictures


def _vote_gaps(study: Study, answers: Sequence[Response]) -> Iterator[tuple[Place, Place, dict[str, float]]]:
    """Of each item its pictures, and by question the votes for the second less those for the first."""
    votes: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    for one in answers:
        votes[one.item][one.question, preferred(one.choice, one.first_on_left)] += 1
    for item in study.of_kind("item"):
        count = votes[item.id]
        if count:
            asked = {question for question, _ in count}
            yield (item, 0), (item, 1), {q: float(count[q, "second"] - count[q, "first"]) for q in asked}


def _rating_gaps(study: Study, answers: Sequence[Response]) -> Iterator[tuple[Place, Place, dict[str, float]]]:
    """Of each two rated pictures of a prompt the same, of mean ratings."""
    means = _means(study, answers)
    tasks: dict[tuple[str, int | None], list[Item]] = defaultdict(list)
    for item in study.of_kind("item"):
        if item.id in means:
            tasks[item.subject, item.prompt_index].append(item)
    for items in tasks.values():
        for one, other in itertools.combinations(items, 2):
            both = means[one.id].keys() & means[other.id].keys()
            yield (one, 0), (other, 0), {q: means[other.id][q][0] - means[one.id][q][0] for q in both}


def _line(winner: Place, loser: Place, margin: dict[str, float], folder: Path, home: Path) -> str:
    def place(picture: str) -> str:
        return os.path.relpath((folder / PICTURES / f"{picture}.png").resolve(), home)

    item = winner[0]
    row = {
        "id": item.id,
        "prompt": item.prompt,
        "references": [place(name) for name in item.references],
        "winner": place(item.pictures[winner[1]]),
        "loser": place(loser[0].pictures[loser[1]]),
        "margin": {key: round(value, 4) for key, value in margin.items()},
    }
    return json_text(row, ensure_ascii=False)


def _write(out: Path, lines: Sequence[str]) -> None:
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, "\n".join(lines) + "\n")


def _means(study: Study, answers: Sequence[Response]) -> dict[str, dict[str, tuple[float, int]]]:
    """Of each real item by question the mean rating and how many there are."""
    real = {item.id for item in study.of_kind("item")}
    given: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for one in answers:
        if one.item in real:
            given[one.item][one.question].append(float(one.choice))
    return {i: {q: (sum(r) / len(r), len(r)) for q, r in by.items()} for i, by in given.items()}


def write_ratings(study: Study, folder: Path, answers: Sequence[Response], out: Path) -> int:
    """People's verdicts in ``out`` as ``cgrpo evaluate`` writes scores, so that ``cgrpo evaluate compare`` reads them.

    Metrics "people-identity" and "people-prompt": of ratings the mean, 0 to 5; of comparisons the share of a picture's
    votes, a tie one half. Returns the number of rows. Raises UserError.
    """
    rows = list(_rating_rows(study, answers) if study.mode == "rating" else _vote_rows(study, answers))
    if not rows:
        raise UserError(f"{folder}: no answers yet; send the raters their links first")
    unit = "mean rating, 0 to 5" if study.mode == "rating" else "share of votes, ties one half"
    description: dict[str, Any] = {
        "benchmark": f"{study.name}, asked of people",
        "conditions": {"study": study.created},
        "facts": {},
        "data": os.path.relpath(folder.resolve(), out.resolve()),
        "references": {
            item.subject: [f"{PICTURES}/{n}.png" for n in item.references] for item in study.of_kind("item")
        },
        "methods": dict.fromkeys(study.methods, os.path.relpath((folder / PICTURES).resolve(), out.resolve())),
        "metrics": {
            f"{PREFIX}{one.id}": {"role": "judge", "axis": one.id, "unit": unit, "checkpoint": ""}
            for one in study.questions
        },
    }
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        write_scores(out, rows)
        write_description(out, description)
    return len(rows)


def _rating_rows(study: Study, answers: Sequence[Response]) -> Iterator[ScoreRow]:
    items = study.by_id()
    for item_id, by_question in _means(study, answers).items():
        for question, (mean, _) in by_question.items():
            yield _score(items[item_id], 0, question, mean)


def _vote_rows(study: Study, answers: Sequence[Response]) -> Iterator[ScoreRow]:
    items = study.by_id()
    votes: dict[tuple[str, str], list[str]] = defaultdict(list)
    for one in answers:
        if items[one.item].kind == "item":
            votes[one.item, one.question].append(preferred(one.choice, one.first_on_left))
    for (item_id, question), given in votes.items():
        for place, name in enumerate(("first", "second")):
            share = sum(1.0 if one == name else 0.5 if one == TIE else 0.0 for one in given) / len(given)
            yield _score(items[item_id], place, question, share)


def _score(item: Item, place: int, question: str, score: float) -> ScoreRow:
    return ScoreRow(
        method=item.arms[place].method,
        subject=item.subject,
        prompt_index=item.prompt_index,
        prompt=item.prompt,
        seed=item.arms[place].seed,
        metric=f"{PREFIX}{question}",
        protocol="one" if question == "identity" else "prompt",
        score=score,
        picture=f"{item.pictures[place]}.png",
        error=None,
    )
