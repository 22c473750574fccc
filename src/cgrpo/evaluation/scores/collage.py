"""How several pictures are scored, and shown, as one."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image


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
