"""Pictures as users have them, made into the pictures a policy takes."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from cgrpo.errors import UserError

# Pillow warns above this many pixels (89 million) and refuses twice as many; here the warning refuses too.
MAX_PIXELS = Image.MAX_IMAGE_PIXELS

_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error)


def read_picture(path: str | Path) -> Image.Image:
    """The picture in ``path`` as RGB, as a viewer shows it on white paper.

    Turned as its EXIF tag says, palette and CMYK converted, 16-bit grey scaled to 8 bits,
    transparency laid on white, and the first frame where there are several (GIF, MPO).

    Raises UserError naming the file if it is missing, no picture, cut short, larger than
    Pillow's limit against decompression bombs (89 megapixels), or of 32-bit pixels.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such picture; check the path (it is relative to the manifest that names it)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                opened.seek(0)
                opened.load()
                return _as_rgb(ImageOps.exif_transpose(opened), path)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise UserError(f"{path}: more than {MAX_PIXELS or 0:,} pixels; scale the picture down first") from None
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: can't be read as a picture ({reason}); save it anew as PNG or JPEG") from error


def _as_rgb(picture: Image.Image, path: Path) -> Image.Image:
    if picture.mode in ("I", "F"):
        raise UserError(f"{path}: has 32-bit pixels (mode {picture.mode}); save it with 8 or 16 bits per channel")
    if picture.mode.startswith("I;16"):  # convert("RGB") would clip to 255: an all-white picture
        return Image.fromarray((np.asarray(picture).astype(np.uint32) // 257).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return picture.convert("RGB")


def resize_reference(image: Image.Image, long_side: int, multiple: int) -> Image.Image:
    """A reference scaled so that its longer side is ``long_side`` pixels, by UNO's inference rule.

    LANCZOS, upwards too; then both sides are cropped, centred, down to multiples of ``multiple``
    (the pixels of one token: 16 for FLUX, 8 behind a four-times-down autoencoder). The shorter side
    is floored from a float product, so some squares lose a strip (214 x 214 -> 512 x 496): kept,
    since the released weights saw just that.

    Raises UserError if nothing is left of the shorter side.
    """
    width, height = image.size
    if width >= height:
        scaled = (long_side, int((long_side / width) * height))
    else:
        scaled = (int((long_side / height) * width), long_side)
    target_width, target_height = (side // multiple * multiple for side in scaled)
    if not (target_width and target_height):
        raise UserError(
            f"a reference of {width} x {height} pixels is too narrow for a long side of {long_side}; crop it squarer"
        )
    left, top = (scaled[0] - target_width) // 2, (scaled[1] - target_height) // 2
    resized = image.resize(scaled, Image.Resampling.LANCZOS)
    return resized.crop((left, top, left + target_width, top + target_height)).convert("RGB")
