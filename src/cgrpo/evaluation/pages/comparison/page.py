"""A folder of scores compared: one JSON with everything, and a page of verdicts, pictures, tables and plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cgrpo.errors import UserError
from cgrpo.evaluation.pages.comparison import figures, leaf
from cgrpo.evaluation.pages.comparison.tables import detail_tables, latex, markdown, tables, tradeoffs_table
from cgrpo.evaluation.show import plots
from cgrpo.evaluation.show.page import Block, Details, Facts, Page, Plots, Section, Text, Verdict
from cgrpo.evaluation.show.plots import save
from cgrpo.evaluation.show.table import Table, number, p_value
from cgrpo.evaluation.show.thumbnails import script as enlarging
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
        verdicts = [verdict(comparison, method).text for method in comparison.methods[1:]]
        table = json_text(comparison.as_dict() | {"verdicts": verdicts}, indent=1, ensure_ascii=False)
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
    pairs = leaf.pair_table(comparison.methods, comparison.columns, rows, folder, description)
    shown = bool(pairs["pictures"])  # a run keeps none
    shelf = [Section("pictures", f"{len(pairs['pairs'])} pairs side by side", [leaf.shelf(pairs)])] if shown else []
    others, explored = comparison.methods[1:], detail_tables(comparison)
    volumes = tradeoffs_table(comparison)
    main = [table for table in tables(comparison) if table not in (*explored, volumes)]
    return Page(
        title(comparison),
        [
            *(verdict(comparison, method) for method in others),
            *(
                Text(why, "muted")
                for why in dict.fromkeys(why for name in others for why in why_apart(comparison, name))
            ),
            *(Text(caution, "caution") for caution in comparison.cautions),
        ],
        [
            *shelf,
            *(Section(f"table-{n}", table.title, table.noted()) for n, table in enumerate(main)),
            _tradeoff(comparison, volumes),
            _details(comparison, explored),
        ],
        wide=True,
        links=(
            *([("pictures", "Pictures")] if shown else []),
            ("table-0", "Tables"),
            ("tradeoff", "Trade-off"),
            ("details", "Details"),
        ),
        style=leaf.style() if shown else "",
        script=enlarging() + leaf.script(pairs) if shown else "",
    ).render()


def _tradeoff(comparison: Comparison, volumes: Table) -> Section:
    words = (
        "Up and to the right is better in both. Grey marks are reference rows; the green area is what the methods "
        "dominate above the reference point."
    )
    title = "Identity against prompt following"
    plot = plots.svg(figures.pareto_figure(comparison), "pareto", title)
    folded = [Details("Hypervolumes", volumes.noted())] if volumes.rows else []
    return Section("tradeoff", title, [Text(words, "muted"), Plots([plot], large=True), *folded])


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

    Its kind is "rose" where every metric did, "mixed" where one fell, else "unknown".
    """
    changes = _changes(comparison, method)
    rose, fell = ([d for d in changes if d.sure and (d.difference > 0) == up] for up in (True, False))
    parts = [f"{word} in {_listed(some)}" for word, some in (("rose", rose), ("fell", fell)) if some]
    parts += [f"no sure change in {_listed(rest)}"] if (rest := [d for d in changes if not d.sure]) else []
    words = "; ".join(parts) or "no score of identity or of the prompt that both have"
    text = f"{method} against {comparison.baseline}: {words}."
    return Verdict("mixed" if fell else "rose" if changes and len(rose) == len(changes) else "unknown", text)


def _changes(comparison: Comparison, method: str) -> list[Difference]:
    """What of the picture alone changed is neither good nor bad in itself, and left out."""
    return [d for d in comparison.tested() if d.method == method and d.axis in ("identity", "prompt")]


def why_apart(comparison: Comparison, method: str) -> list[str]:
    """Why the test, which decides, and the interval of a change disagree, in sentences."""
    changes, tests = _changes(comparison, method), len(comparison.tested())
    corrected = f" after correction for {tests} tests" if tests > 1 else ""
    unsure = [d for d in changes if d.beyond_zero and not d.sure]
    hopeless = [d for d in unsure if tests * d.least_p >= 0.05]
    others = [d for d in unsure if d not in hopeless]
    wide = [d for d in changes if d.sure and not d.beyond_zero]
    why = []
    if hopeless:
        most = max(hopeless, key=lambda d: d.clusters)
        whose = (
            "The 95 % intervals exclude" if len(hopeless) == len(changes) > 1 else f"{_interval_of(hopeless)} excludes"
        )
        few = f"{most.clusters} {comparison.unit} are too few for the test"
        why.append(f"{whose} 0, but {few}: its p is at least {p_value(min(1.0, tests * most.least_p))}{corrected}.")
    if others:
        values = ", ".join(p_value(d.p_holm) for d in others)
        why.append(f"{_interval_of(others)} excludes 0, but the test decides: p {values}{corrected}.")
    if wide:
        why.append(f"{_interval_of(wide)} includes 0, but the test decides.")
    return why


def _interval_of(some: Sequence[Difference]) -> str:
    return f"{some[0].method}: the 95 % interval of {', '.join(d.column for d in some)}"


def _listed(differences: Sequence[Difference]) -> str:
    return ", ".join(f"{d.column} ({number(d.difference, signed=True)})" for d in differences)
