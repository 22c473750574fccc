"""Pictures as users have them, read: whatever Pillow opens, turned upright, of 8 bits, on white paper."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from cgrpo.colours import in_srgb
from cgrpo.errors import UserError
from cgrpo.text import cure_for, first_bytes

Alpha = Literal["white", "drop"]

# Endings of files that are taken for pictures, in whatever case: what Pillow reads without another package.
ENDINGS = (
    ".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".jpe", ".jfif", ".jp2", ".j2k", ".avif",
    ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".dib", ".apng",
)  # fmt: skip

# Pillow warns above this many pixels (89 million) and refuses twice as many; here the warning refuses too.
MAX_PIXELS = Image.MAX_IMAGE_PIXELS

# What Pillow's readers raise on damaged files.
_UNREADABLE = (
    OSError, SyntaxError, ValueError, EOFError, struct.error, TypeError, LookupError, AttributeError, ArithmeticError,
    AssertionError, RuntimeError,
)  # fmt: skip
_UPRIGHT = {  # by EXIF's orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip


def read_picture(content: bytes, name: str | Path, alpha: Alpha = "white") -> Image.Image:
    """The picture that a file's ``content`` holds: turned as its EXIF tag says, the first frame of several (GIF, MPO).

    ``alpha`` "white": RGB as a viewer shows it on white paper; palette and CMYK converted.
    "drop": in its own mode (RGBA, P, CMYK, ...), because UNO resizes first and converts to RGB afterwards, which
    lets go of the alpha channel and shows whatever colours lay under it; ``policies.prepare_reference`` does both.
    Others who look at such a picture convert it to RGB themselves.

    Three things differ from UNO in both modes: UNO doesn't turn pictures by their EXIF tag; it clips 16-bit grey at
    255, which makes it all but white, where here it is scaled to 8 bits (and is 8 bits where it has no more); and it
    takes colours for sRGB's whatever the file's profile says, where here they become sRGB's (colours.py).

    Raises UserError, calling it ``name``, if it is no picture, cut short, larger than Pillow's limit against
    decompression bombs (89 megapixels), or of 32-bit pixels.
    """
    with opened(content, name) as found:
        found.seek(0)
        found.load()
        if _ends_in_nothing(content, found.format):
            raise OSError("its end is missing: nothing but zeros")
        profile = found.info.get("icc_profile")
        picture = _eight_bits(upright(found), name, found.format)
        if alpha == "drop" or picture.mode == "CMYK":
            picture = in_srgb(picture, profile)
        return picture if alpha == "drop" else in_srgb(_on_white(picture), profile)


@contextmanager
def opened(file: bytes | Path, name: str | Path) -> Iterator[Image.Image]:
    """A picture whose pixels aren't decoded yet; what goes wrong within is a UserError that calls it ``name``."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file if isinstance(file, Path) else io.BytesIO(file)) as picture:
                yield picture
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise UserError(f"{name}: more than {MAX_PIXELS or 0:,} pixels; scale the picture down first") from None
    except UnidentifiedImageError:  # whose text names a buffer in memory
        cure = cure_for(first_bytes(file) if isinstance(file, Path) else file[:64], "save it anew as PNG or JPEG")
        raise UserError(f"{name}: can't be read as a picture (no known format); {cure}") from None
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{name}: can't be read as a picture ({reason}); save it anew as PNG or JPEG") from error


def _ends_in_nothing(content: bytes, kind: str | None) -> bool:
    """Whether zeros stand in the place of its end: room was made for it on disk, and never filled.

    Decoders take them for data, and what they stand for is grey. Other formats have sums that tell.
    """
    if kind in ("WEBP", "AVIF"):
        return content.endswith(bytes(512)) and b"exif" not in content.lower()  # whose padding may be the end
    if kind not in ("JPEG", "MPO") or not content.endswith(bytes(64)):
        return False
    place = 2
    while content[place : place + 1] == b"\xff" and content[place + 1] != 0xDA:  # to its data, past any thumbnail
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return content.find(b"\xff\xd9", place) < 0


def upright(picture: Image.Image) -> Image.Image:
    """The picture turned as its EXIF tag says; other tags, which may well be damaged, play no part."""
    try:
        turn = picture.getexif().get(0x0112)
    except _UNREADABLE:
        turn = None
    method = _UPRIGHT.get(turn) if isinstance(turn, int) else None
    if method is None:
        return picture.copy()
    turned = picture.transpose(method)
    for told in ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"):  # or it would be turned twice
        turned.info.pop(told, None)
    return turned


def _eight_bits(picture: Image.Image, name: str | Path, kind: str | None) -> Image.Image:
    if picture.mode == "I" and kind == "PPM":  # Pillow's mode for 16 bits there
        return Image.fromarray((np.asarray(picture) // 257).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise UserError(f"{name}: has 32-bit pixels (mode {picture.mode}); save it with 8 or 16 bits per channel")
    if picture.mode.startswith("I;16"):  # convert("RGB") would clip to 255: an all-white picture
        levels = np.asarray(picture).astype(np.uint32)
        return Image.fromarray((levels if levels.max() <= 255 else levels // 257).astype(np.uint8))
    return picture


def _on_white(picture: Image.Image) -> Image.Image:
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return picture.convert("RGB")


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
