"""What can be measured of a picture without any model: whether it copies its reference, and how it looks as such.

None of them is good or bad in itself, but reward hacking shows in them: pictures brighten, fill with a fine grid, lose
their background, or repeat the reference.
"""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from cgrpo.rewards.base import Axis, Reward, to_pictures, to_tensor
from cgrpo.types import Batch

COPY_SIDE = 32  # pixels: both pictures are brought to this size, so that a copy need not fit to the pixel
LUMA = (0.299, 0.587, 0.114)  # of R, G and B (Rec. 601)


class Measure(Reward):
    """Neither good nor bad in itself, so nothing to train on."""


class CopyPaste(Measure):
    """1 - mean absolute difference to the reference, both stretched to 32 x 32 pixels: 1 is a copy of it. [0, 1].

    With several references the nearest counts; NaN with none.
    """

    axis: Axis = "identity"
    unit = "1 - mean absolute difference to the reference at 32 x 32 pixels, 0 to 1"

    def score(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        scores_N = torch.full((len(batch),), torch.nan)
        pictures = [_small(picture) for picture in to_pictures(images_NHWC)]
        for n, (picture, references) in enumerate(zip(pictures, batch.references, strict=True)):
            if references:
                gaps = to_tensor([picture]).float() - to_tensor([_small(r) for r in references]).float()
                scores_N[n] = 1 - gaps.abs().mean((1, 2, 3)).min() / 255
        return scores_N


class Copies(CopyPaste):
    """1 where ``CopyPaste`` lies above ``threshold``, else 0, so that the mean is the share of copies.

    The threshold belongs between the two modes of ``CopyPaste``: what nearly repeats its reference, and the rest. NaN
    without a reference.
    """

    unit = "share of pictures that copy their reference, 0 to 1"

    def __init__(self, threshold: float):
        self.threshold = threshold

    def score(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        near_N = super().score(images_NHWC, batch)
        return (near_N > self.threshold).float().masked_fill(near_N.isnan(), torch.nan)


def _small(picture: Image.Image) -> Image.Image:
    return picture.convert("RGB").resize((COPY_SIDE, COPY_SIDE))


class Brightness(Measure):
    """Mean luma. Range [0, 1]."""

    axis: Axis = "picture"
    unit = "mean luma, 0 to 1"

    def score(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        return luma(images_NHWC).mean((1, 2)).float()


class EdgeDensity(Measure):
    """Length of all edges, each times its contrast, in sides of the picture: the total variation of luma. 0 or more.

    Exactly: the mean over pixels of the length of luma's gradient (differences to the next pixel on the right and
    below, 0 at the border), times sqrt(height * width). One black-to-white edge straight across a square picture is 1,
    whatever the picture's size; enlarging a picture does not change it, a fine grid raises it the more the finer it is.
    """

    axis: Axis = "picture"
    unit = "length of edges times contrast, in sides of the picture"

    def score(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        y_NHW = luma(images_NHWC)
        down_NHW, right_NHW = torch.zeros_like(y_NHW), torch.zeros_like(y_NHW)
        down_NHW[:, :-1] = y_NHW.diff(dim=1)
        right_NHW[:, :, :-1] = y_NHW.diff(dim=2)
        side = (y_NHW.shape[1] * y_NHW.shape[2]) ** 0.5
        return (torch.hypot(down_NHW, right_NHW).mean((1, 2)) * side).float()


class Saturation(Measure):
    """Mean saturation of HSV: (max - min) / max of R, G and B, 0 for black. Range [0, 1]."""

    axis: Axis = "picture"
    unit = "mean saturation (HSV), 0 to 1"

    def score(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        low_NHW, high_NHW = (bound.double() for bound in images_NHWC.aminmax(dim=-1))
        return ((high_NHW - low_NHW) / high_NHW.clamp(min=1)).mean((1, 2)).float()


def brightness(pictures: list[Image.Image], batch: Batch) -> list[float]:
    """Mean luma as a third reward, type "cgrpo.rewards.measures:brightness": at odds with a dark subject and a dark
    scene alike, so not to be had together with identity and prompt following (tables/three-rewards.toml)."""
    return [float(luma(to_tensor([picture])).mean()) for picture in pictures]


def luma(images_NHWC: Tensor) -> Tensor:
    """uint8 [N, H, W, 3] -> float64 [N, H, W] in [0, 1]."""
    return images_NHWC.double() @ torch.tensor(LUMA, dtype=torch.float64, device=images_NHWC.device) / 255


def copy_measures(threshold: float = 0.0) -> dict[str, Measure]:
    """How near pictures are to their reference, and, with a ``threshold`` above 0, whether they are copies of it."""
    measures: dict[str, Measure] = {"copy_paste": CopyPaste()}
    return measures | {"copies": Copies(threshold)} if threshold else measures


def measures(threshold: float = 0.0) -> dict[str, Measure]:
    """All of them, by name; ``threshold`` as in ``copy_measures``."""
    return copy_measures(threshold) | {
        "brightness": Brightness(),
        "edge_density": EdgeDensity(),
        "saturation": Saturation(),
    }
