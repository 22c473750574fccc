"""What is scored: a method's pictures, and the rows that stand beside every method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from cgrpo.errors import UserError
from cgrpo.evaluation.dreambench.lists import FIRST_SEED, Layout, Row, find_picture, known, picture_name
from cgrpo.evaluation.dreambench.photographs import photographs, subjects_of
from cgrpo.evaluation.dreambench.rows import Key, Protocol

REAL, COPY, PROMPT_ONLY = "real-vs-real", "copy-paste", "prompt-only"
RESERVED = (REAL, COPY, PROMPT_ONLY)


@dataclass(frozen=True)
class Item:
    """A picture to score; ``files`` are several for a collage. The rest as in ``rows.ScoreRow``."""

    method: str
    subjects: tuple[str, ...]
    prompt_index: int | None
    prompt: str | None
    seed: int | None
    picture: str
    files: tuple[Path, ...]

    @property
    def subject(self) -> str:
        return "+".join(self.subjects)

    def key(self, metric: str, protocol: Protocol) -> Key:
        return (self.method, self.subject, self.prompt_index, self.seed, metric, protocol, self.picture)

    def references(self, data: Path, protocol: Protocol) -> list[tuple[str, tuple[str, ...]]]:
        """For each subject its class word and what the picture is compared with: never with itself."""
        return [(known()["subjects"][name]["class"], self._photographs(data, name, protocol)) for name in self.subjects]

    def _photographs(self, data: Path, subject: str, protocol: Protocol) -> tuple[str, ...]:
        if protocol == "prompt":
            return ()
        if protocol == "one":
            return (f"{subject}/{known()['subjects'][subject]['reference']}",)
        return tuple(name for name in photographs(data, subject) if self.method != REAL or name != self.picture)


def method_items(
    method: str,
    folder: Path,
    rows: Sequence[Row],
    seeds: int,
    first_seed: int = FIRST_SEED,
    layout: Layout = "rows",
) -> list[Item]:
    """A method's pictures in ``folder``, one a row and seed, there or not."""
    items = []
    for row in rows:
        for seed in range(first_seed, first_seed + seeds):
            name = find_picture(folder, picture_name(row, seed, layout, first_seed))
            items.append(Item(method, row.subjects, row.prompt_index, row.prompt, seed, name, (folder / name,)))
    if not any(item.files[0].is_file() for item in items):
        shown = items[0].picture
        raise UserError(f"{folder} holds none of the pictures, such as {shown}; see --layout, --seeds and --first-seed")
    return items


def real_items(rows: Sequence[Row], data: Path) -> list[Item]:
    """Each subject's real photographs but its reference: how alike real pictures of one thing are, the ceiling.

    Of a list of pairs too, the subjects stand alone here.
    """
    references = {name for row in rows for name in row.references}
    return [
        Item(REAL, (subject,), None, None, None, name, (data / name,))
        for subject in subjects_of(rows)
        for name in photographs(data, subject)
        if name not in references
    ]


def copy_items(rows: Sequence[Row], data: Path) -> list[Item]:
    """The reference itself as the output for every prompt; of a pair, both references side by side."""
    return [
        Item(
            COPY,
            row.subjects,
            row.prompt_index,
            row.prompt,
            None,
            " + ".join(row.references),
            tuple(data / name for name in row.references),
        )
        for row in rows
    ]


def side_by_side(pictures: Sequence[Image.Image]) -> Image.Image:
    """One picture as it is; several in a row on a white square, each as wide as the others and centred."""
    if len(pictures) == 1:
        return pictures[0]
    side = max(max(picture.size) for picture in pictures)
    width = side // len(pictures)
    sheet = Image.new("RGB", (side, side), "white")
    for place, picture in enumerate(pictures):
        scale = min(width / picture.width, side / picture.height)
        small = picture.resize((max(1, int(picture.width * scale)), max(1, int(picture.height * scale))))
        sheet.paste(small, (place * width + (width - small.width) // 2, (side - small.height) // 2))
    return sheet
