"""Numbers and tables as they are read: one table for page, Markdown, LaTeX and terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from cgrpo.evaluation.show.page import Block, Text
from cgrpo.files import to_float

HUGE = 1e7  # from here on numbers are written with an exponent
DASH, MINUS, TIMES = "\N{EN DASH}", "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"


def number(value: Any, digits: int = 3, signed: bool = False) -> str:
    """A number for reading, with a true minus sign; a dash for None, NaN and what is no number."""
    if not math.isfinite(to_float(value)):
        return DASH
    kind = "f" if abs(value) < HUGE else "e"
    return f"{value:{'+' if signed else ''}.{digits}{kind}}".replace("-", MINUS)


def interval(low: Any, high: Any, digits: int = 3, signed: bool = True) -> str:
    return f"{number(low, digits, signed)} to {number(high, digits, signed)}"


def p_value(p: float) -> str:
    return number(p) if not p < 0.001 else "< 0.001"


def sentence(words: str) -> str:
    """With a capital and a full stop."""
    return f"{words[:1].upper()}{words[1:]}."


@dataclass(frozen=True)
class Cell:
    """A text that a page colours: ``tone`` "rose" or "fell"; ``dot``, before it, of an axis."""

    text: str
    tone: str = ""
    dot: str = ""

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Table:
    """A heading, a line of notes, a head and rows; the first column names the row.

    align: one letter a column, as LaTeX's: "l" for words, "r" for numbers.
    """

    title: str
    note: str
    head: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    align: str

    def __html__(self) -> str:
        """The table alone: its title and note are the section's."""
        heads = Markup("").join(
            Markup('<th scope="col"{}>{}</th>').format(_class(letter), _breaking(name))
            for name, letter in zip(self.head, self.align, strict=True)
        )
        rows = Markup("\n").join(self._row(row) for row in self.rows)
        return Markup(
            '<div class="scroll" role="region" aria-label="{}" tabindex="0">\n<table>\n<thead><tr>{}</tr></thead>\n'
            "<tbody>\n{}\n</tbody>\n</table>\n</div>"
        ).format(self.title, heads, rows)

    def noted(self) -> list[Block]:
        """The note and the table."""
        return [Text(self.note, "muted"), self]

    def _row(self, row: Sequence[str | Cell]) -> Markup:
        cells = [_td(cell, letter) for cell, letter in zip(row, self.align, strict=True)]
        cells[0] = Markup('<th scope="row"{}>{}</th>').format(_class(self.align[0]), _content(row[0]))
        return Markup("<tr>{}</tr>").format(Markup("").join(cells))

    def markdown(self) -> str:
        rule = [{"l": "---", "r": "---:"}[letter] for letter in self.align]
        lines = ["| " + " | ".join(piped(str(cell)) for cell in row) + " |" for row in (self.head, *self.rows)]
        lines.insert(1, "| " + " | ".join(rule) + " |")
        return f"## {piped(self.title)}\n\n{piped(self.note)}\n\n" + "\n".join(lines)

    def latex(self) -> str:
        r"""For \input; needs \usepackage{booktabs}."""
        lines = [
            r"\begin{table}",
            r"\centering\small",
            rf"\caption{{{_escaped(self.title)}. {_escaped(self.note)}}}",
            rf"\begin{{tabular}}{{{self.align}}}",
            r"\toprule",
            _joined(self.head),
            r"\midrule",
            *map(_joined, self.rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
        return "\n".join(lines) + "\n"

    def text(self) -> str:
        """For a terminal: the head and the rows, columns two spaces apart."""
        lines = [[str(cell) for cell in row] for row in (self.head, *self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        sides: list[Callable[[str, int], str]] = [str.ljust if letter == "l" else str.rjust for letter in self.align]
        return "\n".join(
            "  ".join(side(cell, width) for side, cell, width in zip(sides, line, widths, strict=True)).rstrip()
            for line in lines
        )


def _class(letter: str, tone: str = "") -> Markup:
    names = " ".join(filter(None, ("text" if letter == "l" else "", tone)))
    return Markup(' class="{}"').format(names) if names else Markup("")


def _td(cell: str | Cell, letter: str) -> Markup:
    tone = cell.tone if isinstance(cell, Cell) else ""
    return Markup("<td{}>{}</td>").format(_class(letter, tone), _content(cell))


def _content(cell: str | Cell) -> Markup:
    dot = Markup("")
    if isinstance(cell, Cell) and cell.dot:
        dot = Markup('<span class="dot {}" aria-hidden="true"></span>').format(cell.dot)
    shown, bracket, aside = str(cell).partition(" [")
    if bracket and aside.endswith("]"):  # it may go below the rest where a table is narrow
        return dot + Markup('{} <span class="range">[{}</span>').format(_breaking(shown), aside)
    return dot + _breaking(str(cell))


def _breaking(text: str) -> Markup:
    """A long name may be broken after each "_"."""
    return Markup("_<wbr>").join(text.split("_"))


def _joined(row: Sequence[str | Cell]) -> str:
    return " & ".join(_escaped(str(cell)) for cell in row) + r" \\"


def piped(text: str) -> str:
    """``text`` escaped for a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def _escaped(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {letter: "\\" + letter for letter in "&%$#_{}"}
    special |= {MINUS: "$-$", DASH: "--", "<": "$<$", ">": "$>$", "\n": " "}
    return "".join(special.get(letter, letter) for letter in text)
