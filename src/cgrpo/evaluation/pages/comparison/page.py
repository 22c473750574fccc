"""The comparison as one HTML page: verdicts, tables, plots, and every pair's pictures to leaf through."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cgrpo.evaluation.pages.comparison import figures
from cgrpo.evaluation.pages.comparison.tables import tables
from cgrpo.evaluation.pages.report import Verdict, number
from cgrpo.evaluation.scores import PROMPT_ONLY, PROPERTY, REAL, ScoreRow
from cgrpo.evaluation.scores.cells import ALL, column_of
from cgrpo.evaluation.show import plots
from cgrpo.evaluation.show.thumbnails import BUDGET, Album, choose_side, locate, reference_files
from cgrpo.evaluation.statistics.comparison import Comparison, Difference


def render(comparison: Comparison, rows: Sequence[ScoreRow], folder: Path, description: Mapping[str, Any]) -> str:
    """The page's HTML; nothing in it is fetched from anywhere.

    Pictures are looked for in ``folder`` and where ``description`` (benchmark.json's content, maybe empty) says.
    """
    loader = PackageLoader("cgrpo", "evaluation/pages/comparison")
    page = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    pairs = pair_table(comparison, rows, folder, description)
    made = tables(comparison)
    return page.get_template("page.html.j2").render(
        title=title(comparison),
        comparison=comparison,
        verdicts=[verdict(comparison, method) for method in comparison.methods[1:]],
        tables=[table for table in made if not table.title.startswith("By ")],
        details=[table for table in made if table.title.startswith("By ")],
        pareto=Markup(plots.svg(figures.pareto_figure(comparison), "pareto", "Identity against prompt following")),
        subjects=Markup(plots.svg(figures.subjects_figure(comparison), "subjects", "Differences by subject"))
        if comparison.subjects
        else "",
        pairs=len(pairs["pairs"]),
        side=pairs["side"],
        budget=BUDGET // 1_000_000,
        data=Markup(json.dumps(pairs, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")),
    )


def title(comparison: Comparison) -> str:
    benchmark = comparison.settings.get("benchmark")
    return f"{benchmark}: compared with {comparison.baseline}" if benchmark else f"Compared with {comparison.baseline}"


def verdict(comparison: Comparison, method: str) -> Verdict:
    """One sentence on a method: what rose and fell by more than chance after Holm, on all prompts.

    Its kind is "rose" where every metric did, "mixed" where one fell, else "unknown".
    """
    good = ("identity", "prompt")  # what is of the picture alone is neither good nor bad in itself
    found = [d for d in comparison.differences if d.method == method and d.group == ALL and d.axis in good]
    sure = [d for d in found if d.p_holm < 0.05]
    rose, fell = ([d for d in sure if (d.difference > 0) == up] for up in (True, False))
    parts = [f"{word} in {_listed(some)}" for word, some in (("rose", rose), ("fell", fell)) if some]
    parts += [f"no sure change in {_listed(rest)}"] if (rest := [d for d in found if d not in sure]) else []
    told = "; ".join(parts) or "no score of identity or of the prompt that both have"
    text = f"{method} against {comparison.baseline}: {told}."
    return Verdict("mixed" if fell else "rose" if found and len(rose) == len(found) else "unknown", text)


def _listed(differences: Sequence[Difference]) -> str:
    return ", ".join(f"{d.column} ({number(d.difference, signed=True)})" for d in differences)


def pair_table(
    comparison: Comparison, rows: Sequence[ScoreRow], folder: Path, description: Mapping[str, Any]
) -> dict[str, Any]:
    """What the page leafs through, for JSON.

    ``shown`` are the methods with pictures, ``pairs`` one a subject and prompt: subject ``s``, prompt's number ``i``,
    prompt ``p``, whether it asks for a property ``q``, places in ``pictures`` of the reference ``r`` and of each
    method's first seed ``m`` (null: missing), and these pictures' own scores by method and column ``v``.
    """
    prompted = {row.method for row in rows if row.prompt_index is not None}
    shown = [*comparison.methods, *(name for name in (REAL, PROMPT_ONLY) if name in prompted)]
    first: dict[tuple[str, int], dict[str, ScoreRow]] = {}
    for row in rows:
        if row.method in shown and row.prompt_index is not None:
            at = first.setdefault((row.subject, row.prompt_index), {})
            if row.method not in at or (row.seed or 0) < (at[row.method].seed or 0):
                at[row.method] = row
    scores = {
        (r.method, r.subject, r.prompt_index, r.picture, column_of(r).label): r.score for r in rows if r.method in shown
    }
    references = {subject: reference_files(folder, description, subject) for subject, _ in first}
    files = {row: locate(folder, description, row) for at in first.values() for row in at.values()}
    album = Album(choose_side([*references.values(), *files.values()]))
    pairs = [
        {
            "s": subject,
            "i": index,
            "p": next(iter(at.values())).prompt or "",
            "q": next(iter(at.values())).prompt_kind == PROPERTY,
            "r": album.add(references[subject]),
            "m": [album.add(files[at[name]]) if name in at else None for name in shown],
            "v": [
                [scores.get((name, subject, index, at[name].picture, column)) for column in comparison.columns]
                if name in at
                else []
                for name in shown
            ],
        }
        for (subject, index), at in sorted(first.items())
    ]
    return {
        "side": album.side,
        "shown": shown,
        "columns": comparison.columns,
        "pairs": pairs,
        "pictures": album.pictures,
    }
