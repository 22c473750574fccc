"""References as users have them, made into the pictures a policy takes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image

from cgrpo.errors import UserError
from cgrpo.policies.settings import Rule

Size = tuple[int, int]  # width, height

# The sizes of UNO's training at resolution 512, widest first (bytedance/UNO, uno/dataset/uno.py).
_UNO_WIDE = [(768, 256), (768, 320), (704, 320), (640, 384), (576, 448)]
UNO_BUCKETS: list[Size] = [*_UNO_WIDE, (512, 512), *((height, width) for width, height in reversed(_UNO_WIDE))]

# The sizes FLUX.1 Kontext was trained on, tallest first (diffusers' PREFERRED_KONTEXT_RESOLUTIONS).
_KONTEXT_TALL = [(672, 1568), (688, 1504), (720, 1456), (752, 1392), (800, 1328), (832, 1248), (880, 1184), (944, 1104)]
KONTEXT_SIZES: list[Size] = [*_KONTEXT_TALL, (1024, 1024), *((height, width) for width, height in _KONTEXT_TALL[::-1])]


def prepare_references(
    pictures: Sequence[Image.Image], rule: Rule, one_size: int, several_size: int, multiple: int
) -> list[Image.Image]:
    """A task's references by ``prepare_reference``: a single one at ``one_size``, several at ``several_size``."""
    side = one_size if len(pictures) == 1 else several_size or one_size
    return [prepare_reference(picture, rule, side, multiple) for picture in pictures]


def prepare_reference(image: Image.Image, rule: Rule, long_side: int, multiple: int) -> Image.Image:
    """A reference as RGB in the size that ``rule`` gives it; both sides multiples of ``multiple``.

    ``multiple``  pixels of one token: 16 for FLUX, 8 behind a four-times-down autoencoder
    ``long_side``  pixels; by rule:
    "uno"        the longer side, as UNO generates; see ``resize_reference``
    "uno-train"  the side of a square, as UNO's training (and the paper's) prepares references: stretched to the
                 one of 11 sizes whose aspect ratio is nearest. UNO chooses by the mean ratio of a batch; here each
                 picture chooses for itself, so that a reference doesn't depend on its neighbours. Bilinear
                 with antialiasing, rounded to 8 bits, where UNO resizes floats: less than one level apart
    "kontext"    the side of a square, as FluxKontextPipeline (1024) prepares its picture: stretched to the one of
                 17 sizes whose aspect ratio is nearest. LANCZOS
    "flux2"      the side of a square of the most pixels that a reference may have, as Flux2KleinPipeline (1024)
                 prepares them: larger ones are scaled down to it (LANCZOS, in the picture's own mode), smaller ones
                 stay; both sides are cropped, centred, to multiples of ``multiple``
    "qwen"       the side of a square of about as many pixels, as QwenImageEditPlusPipeline (1024) prepares them:
                 stretched to it at the picture's own aspect ratio, sides rounded to multiples of 32. LANCZOS

    Raises UserError where a side would be less than ``multiple``.

    Of the 11 sizes, golden pictures of the reference code confirm seven; the four between 1 : 3 and 3 : 5
    are as its source has them.
    """
    if rule == "uno":
        return resize_reference(image, long_side, multiple)
    if rule == "flux2":
        return limit_area(image, long_side**2, multiple)
    # All of these convert before resizing; UNO's inference after it.
    picture = image.convert("RGB")
    if rule == "qwen":
        return stretch_to_area(picture, long_side)
    if rule == "uno-train":
        size = _nearest_bucket(picture.size, _scaled(UNO_BUCKETS, long_side, 512, multiple))
        return picture.resize(size, Image.Resampling.BILINEAR)
    nearest = kontext_size(picture.size, multiple)
    return picture.resize(_scaled([nearest], long_side, 1024, multiple)[0], Image.Resampling.LANCZOS)


def resize_reference(image: Image.Image, long_side: int, multiple: int) -> Image.Image:
    """A reference scaled so that its longer side is ``long_side`` pixels, by UNO's inference rule.

    LANCZOS, upwards too, in the picture's own mode (palettes: nearest neighbour); then both sides are
    cropped, centred, down to multiples of ``multiple`` (the pixels of one token: 16 for FLUX, 8 behind
    a four-times-down autoencoder), and only then the picture becomes RGB. The shorter side
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


def limit_area(image: Image.Image, most: int, multiple: int) -> Image.Image:
    """A reference of at most ``most`` pixels, scaled down if it has more, cropped to ``multiple``, as RGB.

    Raises UserError if nothing is left of a side.
    """
    width, height = image.size
    if width * height > most:
        scale = math.sqrt(most / (width * height))
        image = image.resize((max(int(width * scale), 1), max(int(height * scale), 1)), Image.Resampling.LANCZOS)
    target_width, target_height = (side // multiple * multiple for side in image.size)
    if not (target_width and target_height):
        raise UserError(
            f"a reference of {width} x {height} pixels has a side of less than {multiple} within {most} pixels; "
            "crop it squarer, or give a larger one"
        )
    left, top = (image.width - target_width) // 2, (image.height - target_height) // 2
    return image.crop((left, top, left + target_width, top + target_height)).convert("RGB")


def stretch_to_area(picture: Image.Image, side: int) -> Image.Image:
    """A picture with about ``side`` * ``side`` pixels, in multiples of 32 (``calculate_dimensions`` of the pipeline).

    Raises UserError if nothing is left of a side.
    """
    ratio = picture.width / picture.height
    width = math.sqrt(side * side * ratio)
    size = (round(width / 32) * 32, round(width / ratio / 32) * 32)
    if not all(size):
        raise UserError(
            f"a reference of {picture.width} x {picture.height} pixels is too narrow for a square of {side}; crop it "
            "squarer"
        )
    return picture.resize(size, Image.Resampling.LANCZOS)


def _scaled(sizes: list[Size], side: int, native: int, multiple: int) -> list[Size]:
    """``sizes``, made for a square of ``native`` pixels, for one of ``side``; floored to whole tokens."""
    scaled = [(w * side // native // multiple * multiple, h * side // native // multiple * multiple) for w, h in sizes]
    if not all(width and height for width, height in scaled):
        raise UserError(
            f"policy.reference_size {side}: leaves some shapes less than a token of {multiple} pixels; make it larger"
        )
    return scaled


def _nearest_bucket(size: Size, buckets: list[Size]) -> Size:
    """The bucket whose height / width is nearest; of equally near ones the first, the widest."""
    ratio = size[1] / size[0]
    return min(buckets, key=lambda bucket: abs(bucket[1] / bucket[0] - ratio))


def kontext_size(size: Size, multiple: int) -> Size:
    """The one of KONTEXT_SIZES whose width / height is nearest to ``size``; of equally near ones the narrowest.

    As in the stock pipeline both sides are floored to ``multiple`` before the ratio is taken.
    """
    width, height = (max(side // multiple, 1) for side in size)
    ratio = width / height
    return min(KONTEXT_SIZES, key=lambda preferred: abs(preferred[0] / preferred[1] - ratio))


def require_one_size(pictures: Sequence[Image.Image], ids: Sequence[str], place: int) -> None:
    """Raises UserError unless the prepared references number ``place`` of tasks ``ids`` are of one size."""
    for picture, name in zip(pictures, ids, strict=True):
        if picture.size != pictures[0].size:
            (width, height), (first_width, first_height) = picture.size, pictures[0].size
            raise UserError(
                f"reference {place + 1} of task {name} is {width} x {height} after resizing, that of task {ids[0]} "
                f"{first_width} x {first_height}; batch tasks of equal reference sizes"
            )
