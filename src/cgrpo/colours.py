"""Colours of other spaces, as phones (Display P3), cameras (Adobe RGB) and print (CMYK) have them, made sRGB's."""

from __future__ import annotations

import functools
import io

import numpy as np
from PIL import Image, ImageCms

_ROUNDING = 2  # levels of 255 by which two profiles of sRGB may differ
_MODES = {"RGB": "RGB", "RGBA": "RGBA", "CMYK": "RGB"}


def in_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """The picture in sRGB's colours, by the ICC ``profile`` of its file; alpha stays.

    As it is without a profile, and where that is sRGB's own, of another kind than the picture (of grey ones: theirs
    only bend the scale), or damaged, as viewers do then.
    """
    transform = _to_srgb(profile, picture.mode) if profile and picture.mode in _MODES else None
    if transform is None or "transparency" in picture.info:  # of single colours, which would be others afterwards
        return picture
    return transform.apply(picture)


@functools.lru_cache(maxsize=32)
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            mode,
            _MODES[mode],
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
    return bool(np.abs(change).max() <= _ROUNDING)
