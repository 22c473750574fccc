"""The contract of a reward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cgrpo.errors import UserError
from cgrpo.types import Batch

Axis = Literal["identity", "prompt"]


class Reward(Protocol):
    """Scores pictures; higher is better.

    ``axis`` is what it measures, ``unit`` says what a score means and its range.
    """

    axis: Axis
    unit: str

    def __call__(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        """Score N pictures (uint8 [N, H, W, 3]), row by row against ``batch`` (N rows).

        Returns float32 [N], on the CPU. A picture that can't be scored is NaN, never 0; a reward
        that is broken raises.
        """
        ...


def to_pictures(images_NHWC: Tensor) -> list[Image.Image]:
    """uint8 [N, H, W, 3] -> PIL RGB pictures."""
    return [Image.fromarray(image) for image in images_NHWC.cpu().numpy()]


def to_tensor(pictures: list[Image.Image]) -> Tensor:
    """PIL RGB pictures of one size -> uint8 [N, H, W, 3]."""
    return torch.from_numpy(np.stack([np.asarray(picture.convert("RGB")) for picture in pictures]))


class FunctionReward:
    """A user's own ``function(pictures, batch) -> N scores`` (floats; NaN or None = could not be scored)."""

    unit = "as the function defines it"

    def __init__(self, function: Callable[[list[Image.Image], Batch], object], axis: Axis):
        self.function = function
        self.axis: Axis = axis

    def __call__(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        scores = self.function(to_pictures(images_NHWC), batch)
        return torch.as_tensor(np.asarray(scores, dtype=np.float32))


def scored(name: str, reward: Reward, images_NHWC: Tensor, batch: Batch) -> Tensor:
    """``reward`` on N pictures, checked: float32 [N], infinite scores made NaN. A reward that raises is a UserError."""
    try:
        scores_N = reward(images_NHWC, batch).float().cpu()
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"reward {name!r} failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        ) from error
    if scores_N.shape != (len(images_NHWC),):
        raise UserError(
            f"reward {name!r} returned scores of shape {list(scores_N.shape)} for {len(images_NHWC)} pictures"
        )
    return torch.where(scores_N.isfinite(), scores_N, torch.nan)
