"""Small pictures inside a page, and galleries of them."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
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


def data_uri(picture: Image.Image) -> str:
    """The picture inside a URI, as PNG, shrunk to 256 pixels if larger."""
    small = fit(picture, SIDES[0], SIDES[0]) if max(picture.size) > SIDES[0] else picture
    return "data:image/png;base64," + encoded(small, "PNG")


def choose_side(shown: Iterable[tuple[Path, ...]], budget: int = BUDGET) -> int:
    """The largest of SIDES at which the pictures are expected to fit into ``budget`` bytes, from a sample of them."""
    distinct = list(dict.fromkeys(files for files in shown if files))
    sample = distinct[:: max(1, len(distinct) // TRIED)]
    for side in SIDES:
        sizes = [len(code) for files in sample if (code := thumbnail(files, side))]
        if not sizes or sum(sizes) / len(sizes) * len(distinct) <= budget:
            return side
    return SIDES[-1]


@dataclass(frozen=True)
class Card:
    """Pictures by label, side by side; the words below them, and a quieter note."""

    pictures: Mapping[str, Image.Image]
    words: str
    note: str = ""

    def __html__(self) -> str:
        row = Markup("").join(
            Markup('<div><img src="{}" alt="{}: {}" loading="lazy">{}</div>\n').format(
                data_uri(picture), label, self.words, label
            )
            for label, picture in self.pictures.items()
        )
        return Markup(
            '<figure>\n<div class="strip">\n{}</div>\n<figcaption>{}\n<small>{}</small></figcaption>\n</figure>'
        ).format(row, self.words, self.note)


@dataclass(frozen=True)
class Gallery:
    """Cards, as many side by side as there is room for."""

    cards: Sequence[Card]

    def __html__(self) -> str:
        shown = Markup("\n").join(Markup("<li>{}</li>").format(card) for card in self.cards)
        return Markup('<ul class="gallery">\n{}\n</ul>').format(shown)
