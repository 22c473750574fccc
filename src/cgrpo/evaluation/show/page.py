"""The base of all pages: a title, what is read first, and sections made of blocks. A page fetches nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


class Block(Protocol):
    """Whatever renders itself as HTML: a text, a ``Table``, plots, ready ``Markup``."""

    def __html__(self) -> str: ...


@dataclass(frozen=True)
class Text:
    """A paragraph; a muted one explains, a caution warns."""

    words: str
    kind: Literal["plain", "muted", "caution"] = "plain"

    def __html__(self) -> str:
        if self.kind == "caution":
            return Markup('<p class="caution">⚠ {}</p>').format(self.words)
        return Markup("<p>{}</p>" if self.kind == "plain" else '<p class="muted">{}</p>').format(self.words)


@dataclass(frozen=True)
class Verdict:
    """One sentence, and whether it is good news; it stands at the head of a page."""

    kind: Literal["rose", "mixed", "unknown"]
    text: str

    def __html__(self) -> str:
        return Markup('<p class="verdict {}">{}</p>').format(self.kind, self.text)


@dataclass(frozen=True)
class Heading:
    """Within a section."""

    words: str

    def __html__(self) -> str:
        return Markup("<h3>{}</h3>").format(self.words)


@dataclass(frozen=True)
class Facts:
    """Names and values, side by side."""

    pairs: Iterable[tuple[str, object]]

    def __html__(self) -> str:
        row = Markup("<div><dt>{}</dt><dd>{}</dd></div>\n")
        return Markup("<dl>\n{}</dl>").format(Markup("").join(row.format(*pair) for pair in self.pairs))


@dataclass(frozen=True)
class Plots:
    """SVGs side by side, or ``large``, one below the other; empty ones are left out."""

    svgs: Iterable[str]
    large: bool = False

    def __html__(self) -> str:
        shown = Markup("\n").join(Markup("<div>{}</div>").format(Markup(svg)) for svg in self.svgs if svg)
        kind = "plots large" if self.large else "plots"
        return Markup('<div class="{}">\n{}\n</div>').format(kind, shown) if shown else shown


@dataclass(frozen=True)
class Details:
    """Blocks behind a line to click on."""

    summary: str
    blocks: Sequence[Block]

    def __html__(self) -> str:
        inside = Markup("\n").join(self.blocks)
        return Markup("<details><summary>{}</summary>\n{}\n</details>").format(self.summary, inside)


@dataclass(frozen=True)
class Code:
    """Text as it stands."""

    text: str

    def __html__(self) -> str:
        return Markup("<pre>{}</pre>").format(self.text)


@dataclass(frozen=True)
class Section:
    """``id`` is what links lead to, and unique on a page."""

    id: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """lead: verdicts, cautions, facts; wide: for many columns; links: (id, words) of sections; style and script: a
    page's own, in addition to everyone's."""

    title: str
    lead: Sequence[Block]
    sections: Sequence[Section]
    wide: bool = False
    links: Sequence[tuple[str, str]] = ()
    style: str = ""
    script: str = ""

    def render(self) -> str:
        return environment("show").get_template("page.html.j2").render(page=self)


def environment(room: str) -> Environment:
    """Templates of a room of ``cgrpo.evaluation``; whatever they are given is escaped."""
    loader = PackageLoader("cgrpo", f"evaluation/{room}")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
