"""Pictures beside each other, with what was asked of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup
from PIL import Image

from cgrpo.evaluation.show.thumbnails import data_uri


@dataclass(frozen=True)
class Card:
    """Pictures by label, in a row; the words below them, and a quieter note."""

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
    """Cards, as many beside each other as there is room for."""

    cards: Sequence[Card]

    def __html__(self) -> str:
        shown = Markup("\n").join(Markup("<li>{}</li>").format(card) for card in self.cards)
        return Markup('<ul class="gallery">\n{}\n</ul>').format(shown)
