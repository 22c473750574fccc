"""A ranked series of adapters as a sentence, a line each, a table, and a page to leaf through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os.path import commonprefix
from pathlib import Path

from cgrpo.evaluation.adapters.ranking import AXES, Assessment, Gain, Ranking, words_of
from cgrpo.evaluation.adapters.series import BASE
from cgrpo.evaluation.pages.comparison import leaf
from cgrpo.evaluation.show import plots
from cgrpo.evaluation.show.page import Block, Page, Plots, Section, Text, Verdict
from cgrpo.evaluation.show.table import DASH, Cell, Table, interval, number
from cgrpo.evaluation.show.thumbnails import script as enlarging
from cgrpo.evaluation.statistics.paired import MEANING
from cgrpo.files import write_text, writing
from cgrpo.scores import Column, ScoreRow, read_description

RULE = (
    "The best has the greatest sum of both gains among the fit: not memorised, with all its layers, and surely below "
    "the base on neither axis. Gains are in standard deviations (SD) of the base's scores over tasks."
)


def sentence_of(ranking: Ranking) -> str:
    """One sentence: which is best, why, and which can't be told apart from it."""
    if ranking.best is None:
        return "No adapter is fit to use: take the base, or look at what is wrong with each."
    best = ranking[ranking.best]
    gains = ", ".join(f"{axis} {words_of(gain)}" for axis, gain in best.gains.items())
    others = [name for name in ranking.tied if name != best.name]
    apart = f"; not told apart from it: {', '.join(others)}" if others else "; every other fit one is surely behind it"
    sure = "" if best.total.above() else ", but it is not surely better than the base"
    return f"{best.name} is best{sure}: {gains} against the base{apart if len(ranking.adapters) > 1 else ''}."


def strength_of(strengths: Ranking, best: str) -> str:
    """One sentence on whether another strength than 1 is surely better."""
    tried = ", ".join(one.name.rpartition("@")[2] for one in strengths.adapters[1:])
    if strengths.best in (None, best) or best in strengths.tied:
        return f"No other strength of {best} is surely better (tried: {tried})."
    ahead = strengths[best].behind
    assert ahead is not None and strengths.best is not None
    return f"{best} is better at strength {strengths.best.rpartition('@')[2]}: at 1 it is {words_of(ahead)} behind."


def line_of(one: Assessment, ranking: Ranking) -> str:
    """An adapter in one line, for a terminal."""
    gains = ", ".join(f"{axis} {words_of(gain)}" for axis, gain in one.gains.items())
    return f"{one.name}: {gains}; {_verdict(one, ranking)}"


def table_of(ranking: Ranking) -> Table:
    """A row per adapter, in the order of the series."""
    axes = [axis for axis in AXES if axis in ranking.metrics]
    head = ["Adapter", "Verdict", *(f"{axis} [95 %]" for axis in axes), "Sum", "Behind the best"]
    head += ["Copy-paste", "Diversity"]
    rows = [
        [
            one.name,
            _verdict(one, ranking),
            *(_cell(one.gains[axis]) for axis in axes),
            number(one.total.value, 2, signed=True),
            _cell(one.behind) if one.behind else DASH,
            *(number(one.measures[name].value, 2, signed=True) for name in ("copy_paste", "diversity")),
        ]
        for one in ranking.adapters
    ]
    note = (
        f"{RULE} Intervals are over {ranking.clusters} {ranking.unit}: {MEANING[ranking.unit]}. Behind the best: at "
        "95 % for all pairs together."
    )
    return Table("Ranking", note, head, rows, "ll" + "r" * (len(head) - 2))


def faults_of(ranking: Ranking, unread: Mapping[str, str]) -> Table:
    """A row per fault, with what was measured; ``unread``: why files were not read, by label."""
    rows = [[one.name, fault.kind, fault.text] for one in ranking.adapters for fault in one.faults]
    rows += [[label, "not read", why] for label, why in unread.items()]
    note = "Each by a rule of its own, with numbers against the base: a reason to look at the pictures, not a proof."
    return Table("What is wrong", note, ["Adapter", "Fault", "Measured"], rows, "lll")


def _cell(gain: Gain) -> Cell:
    tone = "rose" if gain.above() else "fell" if gain.below() else ""
    return Cell(f"{number(gain.value, 2, signed=True)} [{interval(gain.low, gain.high, 2)}]", tone)


def _verdict(one: Assessment, ranking: Ranking) -> str:
    place = "best" if one.name == ranking.best else "not told apart from the best" if one.tied else ""
    return "; ".join(filter(None, [place, *(fault.kind for fault in one.faults)])) or "behind the best"


def write_page(
    out: Path, ranking: Ranking, strengths: Ranking | None, unread: Mapping[str, str], rows: Sequence[ScoreRow]
) -> None:
    """Write ``out``/index.html, which holds small pictures and fetches nothing. Raises UserError."""
    shown = [BASE, *(one.name for one in (*ranking.adapters, *(strengths.adapters[1:] if strengths else ())))]
    columns = [name for some in ranking.metrics.values() for name in some] + [Column("copy_paste", "picture").label]
    pairs = leaf.pair_table(shown, columns, rows, out, read_description(out))
    lead: list[Block] = [Verdict("rose" if ranking.best else "mixed", sentence_of(ranking))]
    lead += [Text(strength_of(strengths, ranking.best))] if strengths and ranking.best else []
    wrong = faults_of(ranking, unread)
    sections = [
        Section("ranking", "Ranking", [*table_of(ranking).noted(), Plots([_curve(ranking)])]),
        *([Section("faults", wrong.title, wrong.noted())] if wrong.rows else []),
        Section("pictures", f"{len(pairs['pairs'])} prompts side by side", [leaf.shelf(pairs)]),
    ]
    page = Page(
        "Which adapter is best",
        lead,
        sections,
        wide=True,
        links=tuple((section.id, section.id.capitalize()) for section in sections),
        style=leaf.style(),
        script=enlarging() + leaf.script(pairs),
    )
    with writing(out):
        write_text(out / "index.html", page.render())


def _curve(ranking: Ranking) -> str:
    """Both gains over the series, with their intervals."""
    figure, axes = plots.canvas("Gains over the base", (7.5, 3.4))
    axes.axhline(0, color=plots.MUTED, linewidth=1)
    places = range(len(ranking.adapters))
    for axis in ranking.metrics:
        gains = [one.gains[axis] for one in ranking.adapters]
        colour = plots.axis_colour(axis)
        axes.fill_between(
            places, [g.low for g in gains], [g.high for g in gains], color=colour, alpha=0.12, linewidth=0
        )
        axes.plot(places, [g.value for g in gains], "o-", color=colour, linewidth=1.8, markersize=4, label=axis)
    if ranking.best is not None:
        place = [one.name for one in ranking.adapters].index(ranking.best)
        axes.axvline(place, color=plots.THIRD, linewidth=1.2, dashes=(5, 3), label=f"best: {ranking.best}")
    step = -(-len(ranking.adapters) // 12)
    common = len(commonprefix([one.name for one in ranking.adapters])) if len(ranking.adapters) > 1 else 0  # noqa: RUF071
    names = [one.name[common:][:16] if n % step == 0 else "" for n, one in enumerate(ranking.adapters)]
    axes.set_xticks(list(places), names, parse_math=False)
    axes.set_ylabel("SD of the base")
    axes.legend(fontsize=9, labelcolor=plots.MUTED, frameon=False)
    ends = "; ".join(
        f"{one.name} {number(one.total.value, 2, signed=True)}" for one in ranking.adapters[:: max(step, 1)]
    )
    return plots.svg(figure, "series", f"Sum of gains by adapter: {ends}")
