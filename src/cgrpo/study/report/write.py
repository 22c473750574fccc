"""A study's report as a page, tables and JSON."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from cgrpo.evaluation.show import plots
from cgrpo.evaluation.show.page import Block, Facts, Page, Plots, Section, Text, Verdict
from cgrpo.evaluation.show.plots import save
from cgrpo.evaluation.show.table import p_value
from cgrpo.files import json_text, write_text, writing
from cgrpo.study.manifest import TIE, read_study
from cgrpo.study.report.findings import Findings, find
from cgrpo.study.report.tables import NAMES, PAPER, PAPER_ROW, pair_name, percent, percents, tables
from cgrpo.study.statistics.comparisons import LOSS, WIN, Shares
from cgrpo.study.statistics.intervals import FEWEST
from cgrpo.study.store import Response, open_store

TITLE = "What people say"


def verdicts(findings: Findings) -> list[Verdict]:
    """A sentence for each comparison. Sure is what the interval over subjects says, of these raters."""
    sentences = []
    if not findings.shares and not findings.means:
        out = sum(one.excluded for one in findings.raters)
        sentences.append(Verdict("unknown", f"No answer counts: of {len(findings.raters)} raters {out} are excluded."))
    for pair in dict.fromkeys((one.baseline, one.method) for one in findings.shares):
        own = [one for one in findings.shares if (one.baseline, one.method) == pair]
        better = [one for one in own if one.win_rate_subjects.above(0.5)]
        worse = [one for one in own if one.win_rate_subjects.below(0.5)]
        parts = [
            f"{NAMES.get(one.question, one.question)} {percent(one.share[WIN])} wins to {percent(one.share[LOSS])} "
            f"losses ({_verdict(one)})"
            for one in own
        ]
        tone = "mixed" if worse else "rose" if len(better) == len(own) else "unknown"
        sentences.append(Verdict(tone, f"{pair_name(own[0])}: {'; '.join(parts)}."))
    return sentences


def _verdict(one: Shares) -> str:
    rate, raters = one.win_rate_subjects, one.win_rate_raters
    if rate.clusters < FEWEST:
        return f"not sure: {rate.clusters} of the {FEWEST} subjects that a verdict needs"
    word = "preferred" if rate.above(0.5) else "not preferred" if rate.below(0.5) else "not sure"
    by_all = raters.above(0.5) or raters.below(0.5)
    who = f"these {raters.clusters} raters" if raters.clusters > 1 else "this rater"
    whom = "" if word == "not sure" or by_all else f" by {who}"
    return f"{word}{whom}: win rate {percents(rate)} %, p {p_value(rate.p)}"


def report_page(findings: Findings) -> Page:
    study = findings.study
    answered, planned = sum(one.answered for one in findings.raters), sum(map(len, study.lists))
    lead: list[Block] = [*verdicts(findings)]
    if answered < planned:
        lead.append(Text(f"{answered} of {planned} pages are answered; what stands here will change.", "caution"))
    lead.append(
        Facts(
            [
                ("Pictures of", study.name or "their own"),
                ("Methods", ", ".join(study.methods)),
                ("Items", len(study.of_kind("item"))),
                ("Raters", len(findings.raters)),
                ("Made", study.created[:10]),
            ]
        )
    )
    sections = []
    if findings.shares:
        words = "Shares of all votes; grey is a tie. The paper's (Customized-GRPO against UNO) are of other pictures."
        plot = plots.svg(figure5(findings.shares), "figure5", "Wins, ties and losses by question")
        sections.append(Section("figure5", "Figure 5", [Text(words, "muted"), Plots([plot], large=True)]))
    sections += [Section(f"table-{n}", table.title, table.noted()) for n, table in enumerate(tables(findings))]
    questions = Facts([(question.id, question.text) for question in study.questions])
    sections.append(Section("asked", "What was asked", [questions]))
    return Page(TITLE, lead, sections, wide=True)


def figure5(comparisons: Sequence[Shares]) -> Figure:
    """A bar a question and pair, the paper's below: wins from the left, then ties, then losses, in percent."""
    bars = []
    for question in dict.fromkeys(one.question for one in comparisons):
        name = NAMES.get(question, question)
        for one in comparisons:
            if one.question == question:
                bars.append((f"{name}: {pair_name(one)}", [100 * one.share[outcome] for outcome in (WIN, TIE, LOSS)]))
        if question in PAPER:
            bars.append((f"{name}, {PAPER_ROW}", PAPER[question]))
    figure, axes = plots.canvas("", (9.0, 0.7 + 0.55 * len(bars)))
    axes.grid(visible=False)
    colours = ((plots.IDENTITY, plots.PAPER), (plots.RULE, plots.INK), (plots.PROMPT, plots.PAPER))
    for row, (label, shares) in enumerate(bars):
        start = 0.0
        faint = 0.45 if PAPER_ROW in label else 1.0
        for share, (colour, ink) in zip(shares, colours, strict=True):
            axes.barh(row, share, left=start, color=colour, height=0.62, alpha=faint)
            if share >= 6:
                word = f"{share:.0f} %"
                tone = ink if faint == 1 else plots.INK
                axes.text(start + share / 2, row, word, ha="center", va="center", fontsize=9, color=tone)
            start += share
    axes.set_yticks(range(len(bars)), [label for label, _ in bars])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("win, tie, loss, % of votes")
    return figure


def read_findings(folder: Path) -> Findings:
    """What a study found so far; it may be served meanwhile. Raises UserError."""
    study = read_study(folder)
    with open_store(folder) as store:
        return find(study, store.raters(), store.responses())


def read_answers(folder: Path) -> list[Response]:
    """All live answers. Raises UserError."""
    with open_store(folder) as store:
        return store.responses()


def write_report(folder: Path, out: Path) -> Path:
    """report.json, report.md, report.html and, of comparisons, figure5.png in ``out``; returns the page. Raises
    UserError."""
    findings = read_findings(folder)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        table = {"verdicts": [verdict.text for verdict in verdicts(findings)]} | findings.as_dict()
        write_text(out / "report.json", json_text(table, indent=1, ensure_ascii=False) + "\n")
        write_text(out / "report.md", markdown(findings))
        write_text(out / "report.html", report_page(findings).render())
        if findings.shares:
            save(figure5(findings.shares), out / "figure5.png")
    return out / "report.html"


def markdown(findings: Findings) -> str:
    sentences = [verdict.text for verdict in verdicts(findings)]
    return "\n\n".join([f"# {TITLE}", *sentences, *(table.markdown() for table in tables(findings))]) + "\n"
