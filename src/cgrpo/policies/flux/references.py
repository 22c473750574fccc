"""How references are resized for FLUX.1: by UNO's inference, by UNO's training, and as FLUX.1 Kontext takes them."""

from __future__ import annotations

from PIL import Image

from cgrpo.errors import UserError

Size = tuple[int, int]  # width, height

# The sizes of UNO's training at resolution 512, widest first (bytedance/UNO, uno/dataset/uno.py).
_UNO_WIDE = [(768, 256), (768, 320), (704, 320), (640, 384), (576, 448)]
UNO_BUCKETS: list[Size] = [*_UNO_WIDE, (512, 512), *((height, width) for width, height in reversed(_UNO_WIDE))]

# The sizes FLUX.1 Kontext was trained on, tallest first (diffusers' PREFERRED_KONTEXT_RESOLUTIONS).
_KONTEXT_TALL = [(672, 1568), (688, 1504), (720, 1456), (752, 1392), (800, 1328), (832, 1248), (880, 1184), (944, 1104)]
KONTEXT_SIZES: list[Size] = [*_KONTEXT_TALL, (1024, 1024), *((height, width) for width, height in _KONTEXT_TALL[::-1])]


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


def stretch_to_bucket(image: Image.Image, side: int, multiple: int) -> Image.Image:
    """A reference as UNO's training, and the paper's, prepares them; ``side`` is that of a square.

    Stretched to the one of 11 sizes whose aspect ratio is nearest. UNO chooses by the mean ratio of a batch; here each
    picture chooses for itself, so that a reference doesn't depend on its neighbours. Bilinear with antialiasing,
    rounded to 8 bits, where UNO resizes floats: less than one level apart.

    Of the 11 sizes, golden pictures of the reference code confirm seven; the four between 1 : 3 and 3 : 5
    are as its source has them.
    """
    picture = image.convert("RGB")  # before resizing; UNO's inference after it
    size = _nearest_bucket(picture.size, _scaled(UNO_BUCKETS, side, 512, multiple))
    return picture.resize(size, Image.Resampling.BILINEAR)


def stretch_to_preferred(image: Image.Image, side: int, multiple: int) -> Image.Image:
    """A reference as FluxKontextPipeline (1024) prepares its picture; ``side`` is that of a square.

    Stretched to the one of 17 sizes whose aspect ratio is nearest. LANCZOS.
    """
    picture = image.convert("RGB")
    nearest = kontext_size(picture.size, multiple)
    return picture.resize(_scaled([nearest], side, 1024, multiple)[0], Image.Resampling.LANCZOS)


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
