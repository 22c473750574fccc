"""A folder of scores into a folder of results: one JSON that everything else shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cgrpo.errors import UserError
from cgrpo.evaluation.pages.comparison import figures
from cgrpo.evaluation.pages.comparison.page import render
from cgrpo.evaluation.pages.comparison.tables import latex, markdown
from cgrpo.evaluation.show.plots import save
from cgrpo.evaluation.statistics.comparison import compare_methods
from cgrpo.files import json_text, write_text
from cgrpo.scores import read_description, read_scores


def write_comparison(folder: Path, baseline: str | None, out: Path) -> Path:
    """Compare the methods of ``folder``'s scores.jsonl, in ``out``; returns the page.

    Written are comparison.json, tables.md, tables.tex, pareto.png, subjects.png and index.html, which holds small
    pictures and needs nothing else. Raises UserError for no scores, an unknown baseline, or an unwritable ``out``.
    """
    rows = read_scores(folder)
    if not rows:
        raise UserError(f"{folder / 'scores.jsonl'}: no scores; run cgrpo evaluate with this folder as --out first")
    description = read_description(folder)
    about = {key: description[key] for key in ("benchmark", "conditions") if key in description}
    comparison = compare_methods(rows, baseline)
    comparison = replace(comparison, settings=about | comparison.settings)
    page = render(comparison, rows, folder, description)
    try:
        out.mkdir(parents=True, exist_ok=True)
        table = json_text(comparison.as_dict(), indent=1, ensure_ascii=False)
        write_text(out / "comparison.json", table + "\n")
        write_text(out / "tables.md", markdown(comparison))
        write_text(out / "tables.tex", latex(comparison))
        save(figures.pareto_figure(comparison), out / "pareto.png")
        save(figures.subjects_figure(comparison), out / "subjects.png")
        write_text(out / "index.html", page)
    except OSError as error:
        raise UserError(f"can't write to {out}: {error.strerror}; give another --out") from error
    return out / "index.html"
