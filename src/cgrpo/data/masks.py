"""Masks as people have them: which pixels are the subject."""

import functools
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from cgrpo.data.archives import read_bytes
from cgrpo.errors import UserError
from cgrpo.pictures import opened, scaled_to_eight_bits, upright


def read_mask(path: Path) -> Image.Image:
    """The mask in a file or member: mode L, its subject the brighter.

    Grey and colour pictures by their brightness. Where that is not what was meant, but only one thing can be: a map of
    labels with black and one label, in grey, a palette or in colour, is that label; 16 bits that only use 8 are 8.
    Raises UserError as ``open_picture`` does, for labels of several objects,
    and for a mask in an alpha channel, whose colours may say the contrary.
    """
    with opened(read_bytes(path), path) as picture:
        picture.seek(0)
        picture.load()
        grey = _grey(upright(picture), path, picture)
    values = {value for _, value in grey.getcolors(256) or []}
    return grey.point([0, *[255] * 255]) if values == {1} or (0 in values and len(values) == 2) else grey


def _grey(picture: Image.Image, path: Path, original: Image.Image) -> Image.Image:
    if picture.has_transparency_data:
        if picture.convert("RGBA").getchannel("A").getextrema() != (255, 255):
            raise UserError(f"{path}: a mask in an alpha channel", "save it in black and white, the subject white")
        picture = picture.convert("RGB")
    if picture.mode[0] in "IF":
        levels = np.asarray(picture).astype(np.int64)
        if picture.mode == "F" or levels.min() < 0 or levels.max() > 65535:
            raise UserError(f"{path}: a mask of 32-bit pixels", "save it with 8 or 16 bits, the subject white")
        return Image.fromarray(scaled_to_eight_bits(levels, original))
    if picture.mode in ("1", "L"):
        return picture.convert("L")
    colour = picture.convert("RGB")
    labels = colour.getcolors(64) or []
    if not any(len(set(label)) > 1 for _, label in labels if isinstance(label, tuple)):
        return colour.convert("L")  # grey, or a picture of many colours, such as a JPEG's
    others = [label for _, label in labels if label != (0, 0, 0)]
    if len(others) > 1:
        raise UserError(f"{path}: a map of {len(others)} labels", "save its subject alone, white on black")
    return Image.fromarray(255 * (np.asarray(colour) == others[0]).all(-1).astype(np.uint8))


def fit_mask(mask: Image.Image, size: tuple[int, int], threshold: int) -> Image.Image:
    """Black and white (mode L): above ``threshold`` is subject. A mask of the picture's shape is scaled to ``size``.

    One of another shape keeps its size: it was made for another picture, as whoever uses it will say.
    """
    grey = mask.convert("L")
    if grey.size != size and abs(grey.width * size[1] - grey.height * size[0]) <= max(size):  # to a pixel of the mask
        grey = grey.resize(size, Image.Resampling.BILINEAR)
    return grey.point([255 * (level > threshold) for level in range(256)])


def mask_of(picture: Image.Image, path: Path, threshold: int) -> Image.Image:
    """The mask in a file, fitted to its picture; an empty one is noted on stderr. Raises UserError as ``read_mask``."""
    mask = fit_mask(read_mask(path), picture.size, threshold)
    if not mask.getbbox():
        say_empty()
    return mask


def mask_fault(fitted: Image.Image, size: tuple[int, int]) -> str | None:
    """What is wrong with a fitted mask of a picture of ``size``; None where nothing is."""
    if fitted.size != size:
        return f"is of another shape than its picture: {_times(fitted.size)}, not {_times(size)}"
    darkest, brightest = fitted.getextrema()
    if darkest == brightest:
        return "is full: all of the picture is subject" if darkest else "is empty: no pixel is above mask_threshold"
    return None


@functools.cache  # once in a process
def say_empty() -> None:
    """On stderr: what becomes of a picture whose mask is empty."""
    note = "a mask is empty, so the whole picture counts as the subject; cgrpo data check names all such rows"
    print(f"cgrpo: {note}", file=sys.stderr)


def _times(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
