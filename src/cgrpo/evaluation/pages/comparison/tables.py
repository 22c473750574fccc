"""A comparison as tables, in Markdown and in LaTeX (booktabs)."""

from __future__ import annotations

from cgrpo.evaluation.show.table import DASH, Table, interval, number, p_value, piped
from cgrpo.evaluation.statistics.cells import ALL
from cgrpo.evaluation.statistics.comparison import Comparison, Difference, SubjectDifference
from cgrpo.evaluation.statistics.paired import MEANING

PERCENT = "95 %"


def tables(comparison: Comparison) -> list[Table]:
    """Means, headline differences, what explores them, and the trade-off, as far as there are any."""
    shown = [means_table(comparison)]
    if comparison.differences:
        shown += [differences_table(comparison), *detail_tables(comparison)]
    if comparison.tradeoffs:
        shown.append(tradeoffs_table(comparison))
    return [table for table in shown if table.rows]


def detail_tables(comparison: Comparison) -> list[Table]:
    """Differences by kind of prompt and subject, and by single subjects."""
    shown = [groups_table(comparison), *(subjects_table(comparison, column) for column in comparison.columns)]
    return [table for table in shown if table.rows]


def means_table(comparison: Comparison) -> Table:
    """A row per method, reference rows below; a column per metric and protocol."""
    table = {(m.method, m.column): m for m in comparison.means if m.group == ALL}
    rows = []
    for name in (*comparison.methods, *comparison.references):
        cells = [table.get((name, column)) for column in comparison.columns]
        pictures = max(mean.pictures for mean in cells if mean)
        rows.append([name, *(number(mean.mean if mean else None) for mean in cells), str(pictures)])
    note = (
        "Means over pairs of subject and prompt, seeds averaged first. In brackets: identity against the one "
        "reference of a subject, or against all its photographs. real-vs-real is the ceiling, copy-paste the reference "
        "itself as output, prompt-only the base model without references."
    )
    head = ["Row", *comparison.columns, "Pictures"]
    return Table("Means", note, head, rows, "l" + "r" * (len(head) - 1))


def differences_table(comparison: Comparison) -> Table:
    """All prompts: the headline interval, the one for these items only, and the test."""
    unit, chosen = comparison.unit, comparison.tested()
    head = ["Method", "Metric", f"Difference [{PERCENT} over {unit}]", "p Holm", "p", "Improved", "these items only"]
    rows = [
        [d.method, d.column, _gap(d), p_value(d.p_holm), p_value(d.p), share(d), interval(d.items_low, d.items_high)]
        for d in chosen
    ]
    exact = all(d.exact for d in chosen)
    note = (
        f"Against {comparison.baseline}, paired by subject and prompt. The headline interval is Student's over the "
        f"{unit}' mean differences: {MEANING[unit]}. The other one, over pairs, speaks of these items only. p: "
        f"{'exact' if exact else 'seeded'} sign flips over {unit}; Holm over all rows.{_least(comparison)} None of "
        "this covers the noise of training: compare several training seeds for that."
    )
    return Table(f"Differences from {comparison.baseline}", note, head, rows, "llrrrrr")


def _least(comparison: Comparison) -> str:
    """What so few subjects can't show; "" where there are enough."""
    chosen = comparison.tested()
    fewest = min(chosen, key=lambda d: d.clusters)
    lowest = len(chosen) * fewest.least_p
    if lowest < 0.05:
        return ""
    return (
        f" Of {fewest.clusters} {comparison.unit} p can't fall below {p_value(fewest.least_p)}, "
        f"{p_value(min(1.0, lowest))} after Holm, however large the difference."
    )


def groups_table(comparison: Comparison) -> Table:
    """The same by kind of prompt and subject; without tests, for these rows explore."""
    head = [
        "Metric",
        "Method",
        "Group",
        f"Difference [{PERCENT} over {comparison.unit}]",
        "Baseline",
        "Method's",
        "Pairs",
    ]
    rows = [
        [d.column, d.method, d.group, _gap(d), number(d.baseline_mean), number(d.method_mean), str(d.pairs)]
        for d in comparison.differences
    ]
    note = (
        "Property prompts (a red one, a wet one, ...) ask for what the subject is not, so they compete with identity "
        "by design. Groups explore: no test, no correction."
    )
    return Table("By kind of prompt and of subject", note, head, rows, "lllrrrr")


def subjects_table(comparison: Comparison, column: str) -> Table:
    """Differences of one metric by subject, a column per method."""
    others = comparison.methods[1:]
    differences = {(d.subject, d.method): d for d in comparison.subjects if d.column == column}
    kinds = {d.subject: d.kind for d in comparison.subjects if d.column == column}
    rows = []
    for subject, kind in kinds.items():
        cells = [differences.get((subject, method)) for method in others]
        texts = [_gap(d) if d else DASH for d in cells]
        rows.append([subject, kind or DASH, *texts])
    note = f"Difference from {comparison.baseline}; in brackets {PERCENT} over the subject's prompts, these items only."
    return Table(f"By subject: {column}", note, ["Subject", "Kind", *others], rows, "ll" + "r" * len(others))


def tradeoffs_table(comparison: Comparison) -> Table:
    """Area above the reference point by method, and of the front as a whole."""
    rows = []
    for t in comparison.tradeoffs:
        place = f"({number(t.origin[0])}, {number(t.origin[1])})"
        for name, area in t.areas.items():
            front, dominance = "yes" if name in t.front else "no", number(t.dominance.get(name), 2)
            rows.append([t.identity, t.prompt, name, place, number(area, 4), front, dominance])
        whole = f"{number(t.hypervolume, 4)} [{interval(t.low, t.high, 4, signed=False)}]"
        rows.append([t.identity, t.prompt, "all methods", place, whole, "", ""])
    rules = "; ".join(dict.fromkeys(t.origin_rule for t in comparison.tradeoffs))
    note = (
        f"Hypervolume: area dominated above the reference point ({rules}), in the metrics' own units. The interval "
        "resamples subjects, the same for all methods, with the reference point held fixed. Beats: share of those "
        f"draws in which the method is above {comparison.baseline} on both axes."
    )
    head = ["Identity", "Prompt", "Method", "Reference point", "Hypervolume", "On the front", "Beats"]
    return Table("Trade-off", note, head, rows, "lllrrrr")


def _gap(difference: Difference | SubjectDifference) -> str:
    return f"{number(difference.difference, signed=True)} [{interval(difference.low, difference.high)}]"


def share(difference: Difference) -> str:
    return f"{round(difference.improved * difference.clusters)} of {difference.clusters}"


def markdown(comparison: Comparison) -> str:
    blocks = [
        f"# {piped(comparison.settings.get('benchmark') or 'Comparison')}",
        *(f"**Caution:** {piped(text)}" for text in comparison.cautions),
    ]
    blocks += [table.markdown() for table in tables(comparison)]
    return "\n\n".join(blocks) + "\n"


def latex(comparison: Comparison) -> str:
    r"""Tables for \input; needs \usepackage{booktabs}."""
    return "% needs \\usepackage{booktabs}\n" + "\n".join(table.latex() for table in tables(comparison))
