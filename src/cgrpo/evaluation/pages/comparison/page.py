"""A folder of scores compared: one JSON with everything, and a page of verdicts, pictures, tables and plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cgrpo.errors import UserError
from cgrpo.evaluation.pages.comparison import figures, leaf
from cgrpo.evaluation.pages.comparison.tables import detail_tables, latex, markdown, tables
from cgrpo.evaluation.show import plots
from cgrpo.evaluation.show.page import Block, Details, Facts, Page, Plots, Section, Text, Verdict
from cgrpo.evaluation.show.plots import save
from cgrpo.evaluation.show.table import Table, number, p_value
from cgrpo.evaluation.statistics.comparison import Comparison, Difference, compare_methods
from cgrpo.files import json_text, write_text, writing
from cgrpo.scores import SCORES, ScoreRow, read_description, read_scores


def write_comparison(folder: Path | str, baseline: str | None, out: Path | str) -> Path:
    """Compare the methods of ``folder``'s scores.jsonl. Returns the page, ``out``/index.html.

    Writes comparison.json, tables.md, tables.tex, pareto.png, subjects.png and the page, which holds small pictures
    and needs no other file. Raises UserError for no scores, an unknown baseline, or an unwritable ``out``.
    """
    folder, out = Path(folder), Path(out)
    rows = read_scores(folder)
    if not rows:
        raise UserError(f"{folder / SCORES}: no scores", "run cgrpo evaluate with this folder as --out first")
    description = read_description(folder)
    about = {name: description[name] for name in ("benchmark", "conditions") if name in description}
    comparison = compare_methods(rows, baseline)
    comparison = replace(comparison, settings=about | comparison.settings)
    page = render(comparison, rows, folder, description)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        table = json_text(comparison.as_dict(), indent=1, ensure_ascii=False)
        write_text(out / "comparison.json", table + "\n")
        write_text(out / "tables.md", markdown(comparison))
        write_text(out / "tables.tex", latex(comparison))
        save(figures.pareto_figure(comparison), out / "pareto.png")
        save(figures.subjects_figure(comparison), out / "subjects.png")
        write_text(out / "index.html", page)
    return out / "index.html"


def render(comparison: Comparison, rows: Sequence[ScoreRow], folder: Path, description: Mapping[str, Any]) -> str:
    """The page's HTML; nothing in it is fetched from anywhere.

    Pictures are looked for in ``folder`` and where ``description`` (benchmark.json's content, maybe empty) says.
    """
    pairs = leaf.pair_table(comparison, rows, folder, description)
    shown = bool(pairs["pictures"])  # a run keeps none
    shelf = [Section("pictures", f"{len(pairs['pairs'])} pairs side by side", [leaf.shelf(pairs)])] if shown else []
    explored = detail_tables(comparison)
    main = [table for table in tables(comparison) if table not in explored]
    return Page(
        title(comparison),
        [
            *(verdict(comparison, method) for method in comparison.methods[1:]),
            *(Text(caution, "caution") for caution in comparison.cautions),
        ],
        [
            *shelf,
            *(Section(f"table-{n}", table.title, table.noted()) for n, table in enumerate(main)),
            _tradeoff(comparison),
            _details(comparison, explored),
        ],
        wide=True,
        links=(
            *([("pictures", "Pictures")] if shown else []),
            ("table-0", "Tables"),
            ("tradeoff", "Trade-off"),
            ("details", "Groups and subjects"),
        ),
        style=leaf.style() if shown else "",
        script=leaf.script(pairs) if shown else "",
    ).render()


def _tradeoff(comparison: Comparison) -> Section:
    words = (
        "Up and to the right is better in both. Grey marks are reference rows; the green area is what the methods "
        "dominate above the reference point."
    )
    title = "Identity against prompt following"
    plot = plots.svg(figures.pareto_figure(comparison), "pareto", title)
    return Section("tradeoff", title, [Text(words, "muted"), Plots([plot], large=True)])


def _details(comparison: Comparison, explored: Sequence[Table]) -> Section:
    blocks: list[Block] = []
    if comparison.subjects:
        words = (
            f"Dots: mean difference from {comparison.baseline} on each subject; lines: 95 % over its prompts, these "
            "items only."
        )
        plot = plots.svg(figures.subjects_figure(comparison), "subjects", "Differences by subject")
        blocks += [Text(words, "muted"), Plots([plot], large=True)]
    blocks += [Details(table.title, table.noted()) for table in explored]
    blocks.append(Details("How it was computed", [Facts(comparison.settings.items())]))
    return Section("details", "Groups and subjects", blocks)


def title(comparison: Comparison) -> str:
    benchmark = comparison.settings.get("benchmark")
    return f"{benchmark}: compared with {comparison.baseline}" if benchmark else f"Compared with {comparison.baseline}"


def verdict(comparison: Comparison, method: str) -> Verdict:
    """One sentence on a method: what rose and fell by more than chance after Holm, on all prompts.

    Its kind is "rose" where every metric did, "mixed" where one fell, else "unknown". A sentence more says why where
    the test and the intervals disagree.
    """
    good = ("identity", "prompt")  # what is of the picture alone is neither good nor bad in itself
    changes = [d for d in comparison.tested() if d.method == method and d.axis in good]
    rose, fell = ([d for d in changes if d.sure and (d.difference > 0) == up] for up in (True, False))
    parts = [f"{word} in {_listed(some)}" for word, some in (("rose", rose), ("fell", fell)) if some]
    parts += [f"no sure change in {_listed(rest)}"] if (rest := [d for d in changes if not d.sure]) else []
    words = "; ".join(parts) or "no score of identity or of the prompt that both have"
    text = " ".join([f"{method} against {comparison.baseline}: {words}.", *_why_apart(comparison, changes)])
    return Verdict("mixed" if fell else "rose" if changes and len(rose) == len(changes) else "unknown", text)


def _why_apart(comparison: Comparison, changes: Sequence[Difference]) -> list[str]:
    """Why the test and the interval of a change disagree."""
    tests, unit = len(comparison.tested()), comparison.unit
    unsure = [d for d in changes if d.beyond_zero and not d.sure]
    hopeless = [d for d in unsure if tests * d.least_p >= 0.05]
    others = [d for d in unsure if d not in hopeless]
    wide = [d for d in changes if d.sure and not d.beyond_zero]
    correction = f" after correction for {tests} tests" if tests > 1 else ""
    why = []
    if hopeless:
        most = max(hopeless, key=lambda d: d.clusters)
        why.append(
            f"The 95 % interval of {_names(hopeless)} excludes 0, but the test decides, and of {most.clusters} {unit} "
            f"its p can't fall below {p_value(min(1.0, tests * most.least_p))}{correction}."
        )
    if others:
        values = ", ".join(p_value(d.p_holm) for d in others)
        why.append(f"The 95 % interval of {_names(others)} excludes 0, but the test decides: p {values}{correction}.")
    if wide:
        why.append(f"The 95 % interval of {_names(wide)} includes 0, as {unit} differ much, but the test decides.")
    return why


def _names(differences: Sequence[Difference]) -> str:
    return ", ".join(d.column for d in differences)


def _listed(differences: Sequence[Difference]) -> str:
    return ", ".join(f"{d.column} ({number(d.difference, signed=True)})" for d in differences)
