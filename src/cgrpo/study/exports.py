"""From people back to training: preference pairs for method "preference", and people's verdicts as rows of scores."""

import itertools
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgrpo.errors import UserError
from cgrpo.files import json_text, write_text, writing
from cgrpo.scores import ScoreRow, write_description, write_scores
from cgrpo.study.manifest import PICTURES, Item, Study
from cgrpo.study.statistics.raters import scores_by_item
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
    questions = [one.id for one in study.questions] if question == BOTH else [question]
    scores = {one: scores_by_item(study, answers, one) for one in questions}
    gaps = _vote_gaps(study, scores) if study.mode == "pairwise" else _rating_gaps(study, scores)
    home, lines, undecided = out.resolve().parent, [], 0
    for first, second, gap in gaps:
        signs = {(value > 0) - (value < 0) for value in gap.values()}
        if not signs - {0} or {1, -1} <= signs:
            undecided += 1
            continue
        winner, loser = (second, first) if 1 in signs else (first, second)
        lines.append(_line(winner, loser, {one: abs(gap.get(one, 0.0)) for one in questions}, folder, home))
    if not lines:
        raise UserError(f"{folder}: no pair on which people decided; ask more of them, or about one --question")
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, "\n".join(lines) + "\n")
    return Pairs(len(lines), undecided)


Place = tuple[Item, int]  # an item, and which of its pictures
Scores = Mapping[str, Mapping[str, Sequence[float]]]  # by question and item, as scores_by_item gives them


def _vote_gaps(study: Study, scores: Scores) -> Iterator[tuple[Place, Place, dict[str, float]]]:
    """Of each item its pictures, and by question the votes for the second less those for the first."""
    for item in study.of_kind("item"):
        gap = {q: sum(2 * score - 1 for score in of[item.id]) for q, of in scores.items() if item.id in of}
        if gap:
            yield (item, 0), (item, 1), gap


def _rating_gaps(study: Study, scores: Scores) -> Iterator[tuple[Place, Place, dict[str, float]]]:
    """Of each two rated pictures of a prompt the same, of mean ratings."""
    means = {q: {item: sum(given) / len(given) for item, given in of.items()} for q, of in scores.items()}
    tasks: dict[tuple[str, int | None], list[Item]] = defaultdict(list)
    for item in study.of_kind("item"):
        if any(item.id in of for of in scores.values()):
            tasks[item.subject, item.prompt_index].append(item)
    for items in tasks.values():
        for one, other in itertools.combinations(items, 2):
            gap = {q: of[other.id] - of[one.id] for q, of in means.items() if one.id in of and other.id in of}
            yield (one, 0), (other, 0), gap


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


def write_ratings(study: Study, folder: Path, answers: Sequence[Response], out: Path) -> int:
    """People's verdicts in ``out`` as ``cgrpo evaluate`` writes scores, so that ``cgrpo evaluate compare`` reads them.

    Metrics "people-identity" and "people-prompt": of ratings the mean, 0 to 5; of comparisons the share of a picture's
    votes, a tie one half. Returns the number of rows. Raises UserError.
    """
    rows = list(_rows(study, answers))
    if not rows:
        raise UserError(f"{folder}: no answer counts; nobody has answered yet, or all raters are excluded")
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


def _rows(study: Study, answers: Sequence[Response]) -> Iterator[ScoreRow]:
    for question in study.questions:
        scores = scores_by_item(study, answers, question.id)
        for item in study.of_kind("item"):
            given = scores.get(item.id, [])
            by_place = [[1 - one for one in given], given] if study.mode == "pairwise" else [given]
            for place, of in enumerate(by_place if given else []):
                yield _score(item, place, question.id, sum(of) / len(of))


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
