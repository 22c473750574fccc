"""Small pictures inside a page, and galleries of them."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Literal

from markupsafe import Markup
from PIL import Image

from cgrpo.data.archives import read_bytes
from cgrpo.errors import UserError
from cgrpo.evaluation.show.sheets import fit
from cgrpo.pictures import opened, side_by_side, upright

BUDGET = 24_000_000  # bytes of all thumbnails together, as base64
SIDES = (256, 192, 144, 112)  # pixels, longest side: the first that keeps the budget, or the last if none does
QUALITY = 72
LARGE = 512  # pixels, longest side of a picture that is looked at alone
SHEET = 1400  # the same of a contact sheet
TINY = 64  # pixels: pictures up to this size, the toy world's, are kept as PNG, pixel by pixel
TRIED = 48  # pictures whose size is measured to choose the side


@dataclass
class Album:
    """Thumbnails as base64; a picture shown twice is kept once. ``at``: their places by files, None if missing."""

    side: int
    pictures: list[str] = field(default_factory=list)
    at: dict[tuple[Path, ...], int | None] = field(default_factory=dict)

    def add(self, files: tuple[Path, ...]) -> int | None:
        """The place of these files' thumbnail (several stand side by side), None if one can't be read."""
        if files not in self.at:
            code = thumbnail(files, self.side)
            self.at[files] = None if code is None else len(self.pictures)
            if code is not None:
                self.pictures.append(code)
        return self.at[files]


def thumbnail(files: Sequence[Path], side: int) -> str | None:
    """Base64 of a JPEG no larger than ``side``, or a PNG of a tiny picture; None where there is none to show."""
    if not files:
        return None
    try:
        pictures = []
        for file in files:
            with opened(read_bytes(file), file) as picture:
                picture.draft("RGB", (2 * side, 2 * side))  # JPEGs decode at a fraction
                pictures.append(upright(picture).convert("RGB"))
    except UserError:
        return None
    small = side_by_side(pictures)
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return encoded(small, "PNG" if max(small.size) <= TINY else "JPEG")


def encoded(picture: Image.Image, kind: Literal["PNG", "JPEG"]) -> str:
    """The picture's file in base64."""
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, format=kind, quality=QUALITY, optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def data_uri(picture: Image.Image, side: int = LARGE) -> str:
    """The picture inside a URI, no larger than ``side``; a tiny one pixel by pixel."""
    kind = "PNG" if max(picture.size) <= TINY else "JPEG"
    small = fit(picture, side, side) if max(picture.size) > side else picture
    return f"data:image/{kind.lower()};base64,{encoded(small, kind)}"


def choose_side(shown: Iterable[tuple[Path, ...]], budget: int = BUDGET) -> int:
    """The largest of SIDES at which the pictures are expected to fit into ``budget`` bytes, from a sample of them."""
    distinct = list(dict.fromkeys(files for files in shown if files))
    sample = distinct[:: max(1, len(distinct) // TRIED)]
    for side in SIDES:
        sizes = [len(code) for files in sample if (code := thumbnail(files, side))]
        if not sizes or sum(sizes) / len(sizes) * len(distinct) <= budget:
            return side
    return SIDES[-1]


def script() -> Markup:
    """What a page needs for its pictures: a click enlarges one, and ``Slides`` get a slider."""
    code = (resources.files("cgrpo.evaluation.show") / "pictures.js").read_text(encoding="utf-8")
    return Markup(f"<script>\n{code}</script>\n")


def image(picture: Image.Image, alt: str, side: int = LARGE) -> Markup:
    """An ``<img>`` that can be enlarged."""
    kind = Markup(' class="pixels"') if max(picture.size) <= TINY else ""
    return Markup('<img src="{}" alt="{}" tabindex="0"{}>').format(data_uri(picture, side), alt, kind)


@dataclass(frozen=True)
class Card:
    """Pictures by label, side by side; the words below them, and a quieter note."""

    pictures: Mapping[str, Image.Image]
    words: str
    note: str = ""

    def __html__(self) -> str:
        row = Markup("").join(
            Markup("<div>{}{}</div>\n").format(image(picture, f"{label}: {self.words}"), label)
            for label, picture in self.pictures.items()
        )
        return Markup(
            '<figure>\n<div class="strip">\n{}</div>\n<figcaption>{}\n<small>{}</small></figcaption>\n</figure>'
        ).format(row, self.words, self.note)


@dataclass(frozen=True)
class Gallery:
    """Cards, as many side by side as there is room for; ``large``: two."""

    cards: Sequence[Card]
    large: bool = False

    def __html__(self) -> str:
        shown = Markup("\n").join(Markup("<li>{}</li>").format(card) for card in self.cards)
        kind = "gallery large" if self.large else "gallery"
        return Markup('<ul class="{}">\n{}\n</ul>').format(kind, shown)


@dataclass(frozen=True)
class Slides:
    """Pictures of one series, one at a time; without JavaScript one below the other. ``noun`` is before each name."""

    noun: str
    pictures: Mapping[str, Image.Image]

    def __html__(self) -> str:
        shown = Markup("\n").join(
            Markup("<figure><figcaption>{} {}</figcaption>{}</figure>").format(
                self.noun, name, image(picture, f"{self.noun} {name}", SHEET)
            )
            for name, picture in self.pictures.items()
        )
        return Markup('<div class="slides">\n{}\n</div>').format(shown)
