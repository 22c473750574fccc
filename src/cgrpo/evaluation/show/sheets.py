"""Contact sheets: many pictures in one, with their prompts, large enough to see."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from cgrpo.rewards.base import to_pictures
from cgrpo.types import Batch

SMALL, LARGE = 128, 256  # pixels: a cell's longer side is brought into this range
GAP, MARGIN, LINE, TEXT = 4, 12, 17, 13  # pixels; TEXT is the font's size, LINE its leading
PAPER, INK, MUTED = (255, 255, 255), (28, 30, 33), (110, 115, 122)

Cell = Image.Image | None


def sample_sheet(
    images_NHWC: Tensor, batch: Batch, group_size: int, scores: Mapping[str, Tensor] | None = None
) -> Image.Image:
    """One row per prompt: the prompt in words, its references, then the group's samples in order.

    images_NHWC uint8 [N, H, W, 3] with N = P * group_size, sample n = p * group_size + g; ``batch`` holds the P tasks.
    scores: [N] by reward's name, written below each sample. Raises ValueError when the counts disagree.
    """
    if len(images_NHWC) != len(batch) * group_size:
        raise ValueError(f"{len(images_NHWC)} pictures are not {len(batch)} prompts x {group_size} samples")
    pictures = to_pictures(images_NHWC)
    width = max((len(references) for references in batch.references), default=0)
    rows: list[list[Cell]] = []
    notes: list[list[str]] = []
    for p, references in enumerate(batch.references):
        samples = range(p * group_size, (p + 1) * group_size)
        rows.append([*references, *[None] * (width - len(references)), *(pictures[n] for n in samples)])
        texts = ["\n".join(f"{k} {v[n].item():.2f}" for k, v in (scores or {}).items()) for n in samples]
        notes.append([""] * width + texts)
    columns = ["reference"] * width + [f"sample {g + 1}" for g in range(group_size)]
    return grid(rows, batch.prompts, columns, notes if scores else (), size=pictures[0].size if pictures else None)


def row_sheet(batch: Batch, chosen: Mapping[str, Sequence[int]], arms: Mapping[str, Tensor]) -> Image.Image:
    """References and each arm's picture (uint8 [N, H, W, 3] by name) of the tasks in ``chosen``, below its names."""
    pictures = {name: to_pictures(images_NHWC) for name, images_NHWC in arms.items()}
    lines = []
    most = max((len(batch.references[n]) for tasks in chosen.values() for n in tasks), default=1)
    columns = ("reference", *[""] * (most - 1), *arms) if most else tuple(arms)
    for name, tasks in chosen.items():
        panels = []
        for n in tasks:
            ours = [column[n] for column in pictures.values()]
            shown = batch.references[n]
            row = [*shown, *[None] * (most - len(shown)), *ours]
            panels.append(grid([row], [batch.prompts[n]], columns, size=ours[-1].size))
        lines += [_label(name, panels[0].width if panels else SMALL), _tile(panels, across=4)]
    return _tile(lines, across=1)


def _label(text: str, width: int) -> Image.Image:
    strip = Image.new("RGB", (width, 2 * LINE), PAPER)
    ImageDraw.Draw(strip).text((MARGIN, LINE // 2), text, INK, _font(TEXT + 3))
    return strip


def grid(
    rows: Sequence[Sequence[Cell]],
    titles: Sequence[str] = (),
    columns: Sequence[str] = (),
    notes: Sequence[Sequence[str]] = (),
    *,
    size: tuple[int, int] | None = None,
) -> Image.Image:
    """Rows of pictures (None leaves a cell empty), all fitted into cells of one size.

    titles: a text above each row, wrapped to the sheet's width; columns: a text above each column;
    notes: a text below each cell. size: the pictures' own size in pixels, by default the first's.
    Cells smaller than 128 pixels are enlarged by a whole factor, those above 256 are shrunk.
    """
    first = next((cell for row in rows for cell in row if cell is not None), None)
    width, height = _cell_size(size or (first.size if first else (SMALL, SMALL)))
    across = max((len(row) for row in rows), default=0)
    total = 2 * MARGIN + max(across * (width + GAP) - GAP, 1)
    wrapped = [_wrap(title, total - 2 * MARGIN) for title in titles] or [[] for _ in rows]
    depth = max((note.count("\n") + 1 for row in notes for note in row if note), default=0)
    top = MARGIN + (LINE if columns else 0)
    heights = [len(lines) * LINE + height + depth * LINE + (MARGIN if titles else GAP) for lines in wrapped]
    sheet = Image.new("RGB", (total, top + sum(heights) + MARGIN // 2), PAPER)
    pen = ImageDraw.Draw(sheet)
    for column, text in enumerate(columns):
        pen.text((MARGIN + column * (width + GAP), MARGIN // 2), text, MUTED, _font())
    for index, (row, lines) in enumerate(zip(rows, wrapped, strict=True)):
        y = top + sum(heights[:index])
        pen.multiline_text((MARGIN, y), "\n".join(lines), INK, _font())
        y += len(lines) * LINE
        for column, cell in enumerate(row):
            x = MARGIN + column * (width + GAP)
            if cell is not None:
                fitted = fit(cell, width, height)
                sheet.paste(fitted, (x + (width - fitted.width) // 2, y + (height - fitted.height) // 2))
            if notes:
                pen.multiline_text((x, y + height + 1), notes[index][column], MUTED, _font(11))
    return sheet


def fit(picture: Image.Image, width: int, height: int) -> Image.Image:
    """The picture as large as fits, in RGB; pixels stay sharp squares when it grows."""
    factor = min(width / picture.width, height / picture.height)
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    return picture.convert("RGB").resize(size, Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.LANCZOS)


def _cell_size(size: tuple[int, int]) -> tuple[int, int]:
    side = max(size)
    if side < SMALL:
        factor = math.ceil(SMALL / side)
        return size[0] * factor, size[1] * factor
    factor = min(1.0, LARGE / side)
    return round(size[0] * factor), round(size[1] * factor)


def _tile(panels: Sequence[Image.Image], across: int) -> Image.Image:
    """Panels ``across`` in a row, aligned at the bottom: texts of different lengths stand above their pictures."""
    lines = [panels[first : first + across] for first in range(0, len(panels), across)]
    heights = [max(panel.height for panel in line) for line in lines]
    step = max((panel.width for panel in panels), default=1)
    sheet = Image.new("RGB", (step * min(across, max(len(panels), 1)), max(sum(heights), 1)), PAPER)
    for index, line in enumerate(lines):
        bottom = sum(heights[: index + 1])
        for column, panel in enumerate(line):
            sheet.paste(panel, (column * step, bottom - panel.height))
    return sheet


def _wrap(text: str, width: int) -> list[str]:
    """Lines of whole words no wider than ``width`` pixels, if the words allow."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and _font().getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines or [""]


def _font(size: int = TEXT) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
