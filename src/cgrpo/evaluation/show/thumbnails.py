"""Small pictures of what was scored, for a page that needs nothing else."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from cgrpo.data.archives import read_bytes
from cgrpo.errors import UserError
from cgrpo.evaluation.scores import ScoreRow
from cgrpo.evaluation.scores.collage import side_by_side
from cgrpo.pictures import opened

BUDGET = 24_000_000  # bytes of all thumbnails together, as base64
SIDES = (256, 192, 144, 112)  # pixels, longest side: the first that keeps the budget, or the last if none does
QUALITY = 72
TINY = 64  # pixels: pictures up to this size, the toy world's, are kept as PNG, pixel by pixel
TRIED = 48  # pictures whose size is measured to choose the side


@dataclass
class Album:
    """Thumbnails as base64, by place; a picture shown twice is kept once. None in ``at``: it is missing."""

    side: int
    pictures: list[str] = field(default_factory=list)
    at: dict[tuple[Path, ...], int | None] = field(default_factory=dict)

    def add(self, files: tuple[Path, ...]) -> int | None:
        """The place of these files' thumbnail (several stand side by side), None if one can't be read."""
        if files not in self.at:
            encoded = thumbnail(files, self.side)
            self.at[files] = None if encoded is None else len(self.pictures)
            if encoded is not None:
                self.pictures.append(encoded)
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
                pictures.append(ImageOps.exif_transpose(picture).convert("RGB"))
    except UserError:
        return None
    small = side_by_side(pictures)
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if max(small.size) <= TINY:
        small.save(buffer, format="PNG", optimize=True)
    else:
        small.save(buffer, format="JPEG", quality=QUALITY, optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def choose_side(shown: Iterable[tuple[Path, ...]], budget: int = BUDGET) -> int:
    """The largest of SIDES at which the pictures are expected to fit into ``budget`` bytes, from a sample of them."""
    distinct = list(dict.fromkeys(files for files in shown if files))
    sample = distinct[:: max(1, len(distinct) // TRIED)]
    for side in SIDES:
        sizes = [len(encoded) for files in sample if (encoded := thumbnail(files, side))]
        if not sizes or sum(sizes) / len(sizes) * len(distinct) <= budget:
            return side
    return SIDES[-1]


def locate(folder: Path, description: Mapping[str, Any], row: ScoreRow) -> tuple[Path, ...]:
    """The files of a row's picture: in its method's folder as benchmark.json names it, or among the photographs, else
    below ``folder``."""
    named = (description.get("methods") or {}).get(row.method, description.get("data", ""))
    places = [folder / named / row.picture, folder / row.picture]
    return (next((place for place in places if place.is_file()), places[0]),)


def reference_files(folder: Path, description: Mapping[str, Any], subject: str) -> tuple[Path, ...]:
    """The references of a subject or pair, as benchmark.json names them; none where it doesn't."""
    names = (description.get("references") or {}).get(subject, ())
    return tuple(folder / description.get("data", "data") / name for name in names)
