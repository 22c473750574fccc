"""Small JPEGs of what was scored, for a page that needs nothing else."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from cgrpo.evaluation.dreambench import ScoreRow
from cgrpo.evaluation.dreambench.items import side_by_side
from cgrpo.evaluation.dreambench.lists import known

BUDGET = 24_000_000  # bytes of all thumbnails together, as base64
SIDES = (256, 192, 144, 112)  # pixels, longest side: the first that keeps the budget, or the last if none does
QUALITY = 72
TRIED = 48  # pictures whose size is measured to choose the side


@dataclass
class Album:
    """Thumbnails as base64 of JPEG, by place; a picture shown twice is kept once. None in ``at``: it is missing."""

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
    """Base64 of a JPEG no larger than ``side``; None for no files, or one that is missing or no picture."""
    if not files:
        return None
    try:
        opened = []
        for file in files:
            with Image.open(file) as picture:
                picture.draft("RGB", (2 * side, 2 * side))  # JPEGs decode at a fraction
                opened.append(ImageOps.exif_transpose(picture).convert("RGB"))
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    small = side_by_side(opened)
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
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
    """The files of a row's picture: in its method's folder as dreambench.json names it, else below ``folder``."""
    places = [folder / row.picture]
    if row.method in (description.get("methods") or {}):
        places.insert(0, folder / description["methods"][row.method] / row.picture)
    return (next((place for place in places if place.is_file()), places[0]),)


def reference_files(folder: Path, description: Mapping[str, Any], subject: str) -> tuple[Path, ...]:
    """The official reference photographs of a subject or pair; none for a name that is not DreamBench's."""
    table = known()["subjects"]
    names = subject.split("+")
    if not all(name in table for name in names):
        return ()
    data = folder / description.get("data", "data")
    return tuple(data / name / table[name]["reference"] for name in names)
