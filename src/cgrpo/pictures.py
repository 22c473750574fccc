"""Pictures as users have them, read: whatever Pillow opens, upright, 8 bits per channel, sRGB, on white."""

import functools
import io
import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin, UnidentifiedImageError

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

# Pillow refuses a PNG with a megabyte of packed text. Editors' XMP, with a picture's history, has more.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 64 << 20

# What Pillow's readers raise on damaged files.
_UNREADABLE = (
    OSError, SyntaxError, ValueError, EOFError, struct.error, TypeError, LookupError, AttributeError, ArithmeticError,
    AssertionError, RuntimeError,
)  # fmt: skip
_SAVE = "save it anew as PNG or JPEG"
_UPRIGHT = {  # by EXIF's orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip


def read_picture(content: bytes, name: str | Path, alpha: Alpha = "white") -> Image.Image:
    """The picture in a file's ``content``: turned as its EXIF tag says, the first frame of several (GIF, MPO), in sRGB.

    ``alpha`` "white": RGB, as a viewer shows it on white; palettes and CMYK are converted.
    "drop": in its own mode (RGBA, P, CMYK, ...). UNO resizes first and converts to RGB afterwards, which drops alpha
    and shows the colours under it; ``policies.prepare_reference`` does both.

    Three things differ from UNO in both modes. UNO doesn't turn pictures by their EXIF tag. It clips 16-bit grey at
    255; here 16 bits are scaled to 8, or kept where only 8 are used. It ignores colour profiles; here they are applied
    (a palette with one becomes RGB).

    Raises UserError, calling the picture ``name``, if it is none, is cut short, is larger than Pillow's limit against
    decompression bombs (89 megapixels), or has 32-bit pixels.
    """
    with opened(content, name) as picture:
        picture.seek(0)
        picture.load()
        if _is_zero_filled(content, picture.format):
            raise OSError("its end is missing: nothing but zeros")
        profile = picture.info.get("icc_profile")
        eight = _eight_bits(upright(picture), name, picture, content)
        if alpha == "drop" and eight.mode in ("P", "PA") and profile:
            eight = eight.convert("RGB")
            eight.info.pop("transparency", None)
        if alpha == "drop" or eight.mode == "CMYK":
            eight = _in_srgb(eight, profile)
        return eight if alpha == "drop" else _in_srgb(_on_white(eight), profile)


@contextmanager
def opened(file: bytes | Path, name: str | Path) -> Iterator[Image.Image]:
    """A picture whose pixels aren't decoded yet. An error within becomes a UserError that calls it ``name``."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file if isinstance(file, Path) else io.BytesIO(file)) as picture:
                yield picture
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise UserError(f"{name}: more than {MAX_PIXELS or 0:,} pixels", "scale the picture down first") from None
    except UnidentifiedImageError:  # whose text names a buffer in memory
        cure = cure_for(first_bytes(file) if isinstance(file, Path) else file[:64], _SAVE)
        raise UserError(f"{name}: can't be read as a picture (no known format)", cure) from None
    except _UNREADABLE as error:
        raise UserError(f"{name}: can't be read as a picture ({' '.join(str(error).split())})", _SAVE) from error


def _is_zero_filled(content: bytes, kind: str | None) -> bool:
    """Whether the file ends in zeros instead of data: disk space was reserved and never written.

    Decoders show such an end as grey. Formats other than these have checksums.
    """
    if kind in ("WEBP", "AVIF"):
        return content.endswith(bytes(512)) and b"exif" not in content.lower()  # EXIF's padding may be the end
    if kind not in ("JPEG", "MPO") or not content.endswith(bytes(64)):
        return False
    place = 2
    while content[place : place + 1] == b"\xff" and content[place + 1] != 0xDA:  # to the data, past any thumbnail
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return content.find(b"\xff\xd9", place) < 0


def upright(picture: Image.Image) -> Image.Image:
    """A copy, turned as the picture's EXIF tag says; other tags, which may be damaged, play no part."""
    try:
        turn = picture.getexif().get(0x0112)
    except _UNREADABLE:
        turn = None
    method = _UPRIGHT.get(turn) if isinstance(turn, int) else None
    if method is None:
        return picture.copy()
    turned = picture.transpose(method)
    for tag in ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"):  # or it would be turned twice
        turned.info.pop(tag, None)
    return turned


def _eight_bits(picture: Image.Image, name: str | Path, original: Image.Image, content: bytes) -> Image.Image:
    """``picture``, the ``original`` turned upright, with 8 bits per channel."""
    if picture.mode == "I" and original.format == "PPM":  # Pillow's mode for 16 bits there
        return Image.fromarray((np.asarray(picture) // 257).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise UserError(f"{name}: has 32-bit pixels (mode {picture.mode})", "save it with 8 or 16 bits per channel")
    clear = picture.info.get("transparency") if original.format == "PNG" else None  # a level, as the file counts
    if picture.mode.startswith("I;16"):  # convert("RGB") would clip to 255: an all-white picture
        levels = np.asarray(picture)
        grey = Image.fromarray(scaled_to_eight_bits(levels, original))
        if not isinstance(clear, int):
            return grey
        return Image.merge("LA", (grey, Image.fromarray(255 * (levels != clear).astype(np.uint8))))
    if picture.mode == "L" and isinstance(clear, int):
        picture.info["transparency"] = clear * 255 // (2 ** content[24] - 1)  # IHDR's depth: 2, 4 or 8 bits
    if picture.mode == "RGB" and isinstance(clear, tuple) and content[24] == 16:
        picture.info["transparency"] = tuple(level >> 8 for level in clear)  # as Pillow reads the pixels
    return picture


def scaled_to_eight_bits(levels: np.ndarray, original: Image.Image) -> np.ndarray:
    """Levels of 16 bits, or a TIFF's 12, as 8; of 16 bits that only use 8 these. White is white, as the TIFF says."""
    tags = getattr(original, "tag_v2", {})
    (bits, *_), white_is_zero = np.atleast_1d(tags.get(258, 16)), tags.get(262) == 0
    white = 255 if levels.max() <= 255 else 2 ** int(bits) - 1
    eight = (levels.astype(np.uint32) * 255 // white).astype(np.uint8)
    return 255 - eight if white_is_zero else eight


def unread_colours(content: bytes) -> bool:
    """Whether a PNG or AVIF says in other ways than an ICC profile that its colours are not sRGB's.

    PNG: cICP, or gAMA and cHRM without iCCP and sRGB. AVIF: nclx.
    """
    place = content.find(b"colrnclx", 0, 4096)
    if place >= 0:
        primaries, transfer = struct.unpack_from(">HH", content.ljust(place + 12, b"\0"), place + 8)
        return primaries not in (1, 2) or transfer in (8, 16, 18)  # BT.709's or unspecified; linear, PQ, HLG
    chunks: dict[bytes, bytes] = {}
    place = 8 if content.startswith(b"\x89PNG") else len(content)
    while place + 8 <= len(content) and b"IDAT" not in chunks:
        size, kind = struct.unpack_from(">I4s", content, place)
        chunks[kind] = content[place + 8 : place + 8 + min(size, 32)]
        place += size + 12
    if b"cICP" in chunks:
        return chunks[b"cICP"][:2] not in (b"\x01\x0d", b"\x01\x01")
    if b"iCCP" in chunks or b"sRGB" in chunks:
        return False
    gamma, corners = chunks.get(b"gAMA", b""), chunks.get(b"cHRM", b"")
    values = [*struct.unpack(f">{len(gamma) // 4}I", gamma[:4]), *struct.unpack(f">{len(corners) // 4}I", corners)]
    usual = [45455] * (len(gamma) // 4) + [31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000]
    return any(abs(one - other) > 1000 for one, other in zip(values, usual, strict=False))


# Two profiles of sRGB may differ by so many levels of 255.
_SRGB_ROUNDING = 2
_PROFILED = {"RGB": "RGB", "RGBA": "RGBA", "CMYK": "RGB"}


def _in_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """The picture converted to sRGB from the ICC ``profile`` of its file, such as Display P3; alpha stays.

    Unchanged without a profile, and where that is sRGB's own, damaged, or of another mode than the picture.
    """
    transform = _to_srgb(profile, picture.mode) if profile and picture.mode in _PROFILED else None
    if transform is None or "transparency" in picture.info:  # the one transparent colour would be another one
        return picture
    return transform.apply(picture)


@functools.lru_cache(maxsize=32)
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            mode,
            _PROFILED[mode],
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        assert isinstance(transform, ImageCms.ImageCmsTransform)
        return None if mode != "CMYK" and _changes_nothing(transform, mode) else transform
    except (ImageCms.PyCMSError, ImportError, OSError, TypeError, ValueError):  # ImportError: Pillow without littlecms
        return None


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    steps = np.linspace(0, 255, 6).astype(np.uint8)
    colours = Image.fromarray(np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(6, 36, 3)).convert(mode)
    change = np.asarray(transform.apply(colours)).astype(int) - np.asarray(colours)
    return bool(np.abs(change).max() <= _SRGB_ROUNDING)


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
