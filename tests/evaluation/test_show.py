"""One table four ways, and the skeleton of every page."""

from __future__ import annotations

import pytest

from cgrpo.evaluation.show.page import Details, Facts, Page, Plots, Section, Text, Verdict
from cgrpo.evaluation.show.table import Cell, Table, interval, p_value, sentence

EVIL = "<b>a|b & 5%</b>"
TABLE = Table(
    "Some <numbers>",
    "A note.",
    ["Method", "Kind", "Gain"],
    [[Cell(EVIL, dot="identity"), "plain", Cell("\N{MINUS SIGN}0.5", "fell")], ["base", "property", "12.25"]],
    "llr",
)


def test_html_escapes_everything_and_colours_what_is_told():
    html = TABLE.__html__()
    assert "<b>" not in html and "&lt;b&gt;a|b &amp; 5%&lt;/b&gt;" in html
    assert 'aria-label="Some &lt;numbers&gt;"' in html
    assert '<span class="dot identity" aria-hidden="true"></span>' in html
    assert '<td class="fell">\N{MINUS SIGN}0.5</td>' in html and "<td>12.25</td>" in html
    assert html.count('<th scope="row" class="text">') == 2 and html.count('<th scope="col">') == 1


def test_markdown_keeps_its_cells():
    assert TABLE.markdown().splitlines() == [
        "## Some &lt;numbers>",
        "",
        "A note.",
        "",
        "| Method | Kind | Gain |",
        "| --- | --- | ---: |",
        "| &lt;b>a\\|b & 5%&lt;/b> | plain | \N{MINUS SIGN}0.5 |",
        "| base | property | 12.25 |",
    ]


def test_latex_escapes_and_aligns():
    text = TABLE.latex()
    assert r"\begin{tabular}{llr}" in text and r"\caption{Some $<$numbers$>$. A note.}" in text
    assert r"$<$b$>$a|b \& 5\%$<$/b$>$ & plain & $-$0.5 \\" in text


def test_a_terminal_gets_columns():
    table = Table("", "", ["", "clip"], [["base", "0.25"], ["uno-tdw", "0.3"]], "lr")
    assert table.text() == "         clip\nbase     0.25\nuno-tdw   0.3"


@pytest.mark.parametrize("row", [["one"], ["one", "two", "three", "four"]])
def test_a_row_of_another_width_is_no_row(row):
    with pytest.raises(ValueError):
        Table("", "", ["a", "b"], [row], "lr").__html__()


def test_a_page_is_its_lead_and_its_sections():
    page = Page(
        f"Title {EVIL}",
        [Verdict("rose", EVIL), Text(EVIL, "caution"), Facts([("seed", 3)])],
        [
            Section("one", "First", [Text("words", "muted"), *TABLE.noted()]),
            Section("two", "Second", [Plots(["<svg></svg>", ""]), Details("more", [Text(EVIL)])]),
        ],
        links=[("two", "To the second")],
        style=".own { color: red; }",
    ).render()
    assert "<b>" not in page and page.count("<h1>") == 1
    assert page.index('class="verdict rose"') < page.index('class="caution"') < page.index("<dt>seed</dt><dd>3</dd>")
    assert page.index('<h2 id="one">First</h2>') < page.index("A note.") < page.index('<h2 id="two">Second</h2>')
    assert page.count("<svg></svg>") == 1 and '<a href="#two">To the second</a>' in page
    assert ".own { color: red; }" in page and "--identity:" in page and "<script" not in page
    assert 'class="wide"' not in page


def test_plots_that_there_are_none_of_leave_nothing():
    assert Plots(["", ""]).__html__() == ""


def test_words():
    minus, dash = "\N{MINUS SIGN}", "\N{EN DASH}"
    assert (
        interval(-0.01, 0.2) == f"{minus}0.010 to +0.200" and interval(None, 0.5, 1, signed=False) == f"{dash} to 0.5"
    )
    assert (p_value(0.0004), p_value(0.25)) == ("< 0.001", "0.250")
    assert sentence("no check was better") == "No check was better."


def test_an_interval_may_go_below_its_number_on_a_page_alone() -> None:
    table = Table("t", "n", ["", "found"], [["a", "+0.1 [+0.0 to +0.3]"], ["b [c", "1"]], "lr")
    assert '+0.1 <span class="range">[+0.0 to +0.3]</span></td>' in table.__html__()
    assert "b [c</th>" in table.__html__() and "| +0.1 [+0.0 to +0.3] |" in table.markdown()
