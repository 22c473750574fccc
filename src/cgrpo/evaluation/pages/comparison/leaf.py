"""Every pair's pictures, method by method, to leaf through: a block of the page that needs JavaScript."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from markupsafe import Markup

from cgrpo.evaluation.show.page import environment
from cgrpo.evaluation.show.thumbnails import BUDGET, Album, choose_side
from cgrpo.evaluation.statistics.cells import Pair, pairs_of
from cgrpo.files import json_text
from cgrpo.scores import PROMPT_ONLY, PROPERTY, REAL, ScoreRow


def style() -> str:
    return _beside("leaf.css")


def script(pairs: Mapping[str, Any]) -> Markup:
    """The pairs, as ``pair_table`` gives them, and what leafs through them."""
    data = json_text(pairs, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return Markup(f'<script type="application/json" id="data">{data}</script>\n<script>\n{_beside("leaf.js")}</script>')


def shelf(pairs: Mapping[str, Any]) -> Markup:
    """Where they are shown, and the controls."""
    template = environment("pages/comparison").get_template("leaf.html.j2")
    return Markup(template.render(side=pairs["side"], budget=BUDGET // 1_000_000))


def _beside(name: str) -> str:
    return (resources.files("cgrpo.evaluation.pages.comparison") / name).read_text(encoding="utf-8")


def pair_table(
    methods: Sequence[str],
    columns: Sequence[str],
    rows: Sequence[ScoreRow],
    folder: Path,
    description: Mapping[str, Any],
) -> dict[str, Any]:
    """What the page leafs through, for JSON: ``methods``, the baseline first, with their scores in ``columns``.

    ``shown`` are the methods with pictures, ``pairs`` one a subject and prompt: subject ``s``, prompt's number ``i``,
    prompt ``p``, its kind ``k`` and whether that is a property ``q``, places in ``pictures`` of the reference ``r`` and
    of each method's first seed ``m`` (null: missing), and these pictures' own scores by method and column ``v``.
    """
    prompted = {row.method for row in rows if row.prompt_index is not None}
    shown = [*methods, *(name for name in (REAL, PROMPT_ONLY) if name in prompted)]
    first: dict[Pair, dict[str, ScoreRow]] = {}
    scores: dict[tuple[str, Pair, str, str], float | None] = {}
    for row, pair in zip(rows, pairs_of(rows), strict=True):
        if row.method not in shown or row.prompt_index is None:
            continue
        at = first.setdefault(pair, {})
        if row.method not in at or (row.seed or 0) < (at[row.method].seed or 0):
            at[row.method] = row
        scores[row.method, pair, row.picture, row.column.label] = row.score
    references = {pair.subject: reference_files(folder, description, pair.subject) for pair in first}
    files = {row: locate(folder, description, row) for at in first.values() for row in at.values()}
    album = Album(choose_side([*references.values(), *files.values()]))
    numbers = {pair: next(iter(at.values())).prompt_index or 0 for pair, at in first.items()}
    pairs = [
        {
            "s": pair.subject,
            "i": numbers[pair],
            "p": next(iter(at.values())).prompt or "",
            "q": pair.prompt_kind == PROPERTY,
            "k": pair.prompt_kind,
            "r": album.add(references[pair.subject]),
            "m": [album.add(files[at[name]]) if name in at else None for name in shown],
            "v": [
                [scores.get((name, pair, at[name].picture, column)) for column in columns] if name in at else []
                for name in shown
            ],
        }
        for pair, at in sorted(first.items(), key=lambda item: (item[0].subject, numbers[item[0]]))
    ]
    return {
        "side": album.side,
        "shown": shown,
        "columns": list(columns),
        "pairs": pairs,
        "pictures": album.pictures,
    }


def locate(folder: Path, description: Mapping[str, Any], row: ScoreRow) -> tuple[Path, ...]:
    """The files of a row's picture: in its method's folder as benchmark.json names it, or among the photographs, else
    below ``folder``."""
    named = (description.get("methods") or {}).get(row.method, description.get("data", ""))
    places = [folder / named / row.picture, folder / row.picture]
    return (next((place for place in places if place.is_file()), places[0]),)


def reference_files(folder: Path, description: Mapping[str, Any], subject: str) -> tuple[Path, ...]:
    """The references of a subject or pair, as benchmark.json names them; none where it doesn't."""
    names = (description.get("references") or {}).get(subject, ())
    return tuple(folder / description.get("data", "data") / name for name in names)
