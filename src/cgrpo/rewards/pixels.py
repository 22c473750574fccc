"""Pictures to pixel values, where a metric's protocol says how and not the checkpoint's folder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

Statistics = tuple[tuple[float, float, float], tuple[float, float, float]]  # mean and deviation of red, green, blue
IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP: Statistics = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def centre_crop(picture: Image.Image, short: int, side: int) -> Image.Image:
    """RGB, its short side brought to ``short`` pixels (PIL bicubic), then the square of ``side`` in its middle.

    Rounding as torchvision's: the long side downwards, the crop's margins to the nearest even number at a half.
    """
    picture = picture.convert("RGB")
    scale = min(picture.size)
    width, height = (short * length // scale for length in picture.size)
    if (width, height) != picture.size:
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - side) / 2), round((height - side) / 2)
    return picture.crop((left, top, left + side, top + side))


def padded(pictures: Sequence[Image.Image], side: int) -> Tensor:
    """RGB, float32 in about [0, 1], [N, 3, side, side]: the long side brought to ``side`` pixels, black around.

    Bicubic with antialiasing on floats, unlike PIL's: neither rounded to 8 bits nor clipped.
    """
    return torch.stack([_padded(picture, side) for picture in pictures])


def _padded(picture: Image.Image, side: int) -> Tensor:
    x_CHW = as_floats([picture.convert("RGB")])[0]
    height, width = (max(1, round(length * side / max(picture.size))) for length in x_CHW.shape[1:])
    if (height, width) != x_CHW.shape[1:]:
        x_CHW = F.interpolate(x_CHW[None], (height, width), mode="bicubic", antialias=True)[0]
    left, top = (side - width) // 2, (side - height) // 2
    return F.pad(x_CHW, (left, side - width - left, top, side - height - top))


def as_floats(pictures: Sequence[Image.Image]) -> Tensor:
    """RGB pictures of one size -> float32 [N, 3, H, W] in [0, 1]."""
    return torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2) / 255


def normalised(x_NCHW: Tensor, statistics: Statistics) -> Tensor:
    """Less the mean, over the deviation, channel by channel."""
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in statistics)
    return (x_NCHW - mean) / deviation
