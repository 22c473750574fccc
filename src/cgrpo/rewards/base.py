"""The contract of a reward."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Generic, Literal, Protocol, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cgrpo.errors import UserError
from cgrpo.types import Batch

Axis = Literal["identity", "prompt", "picture"]  # "picture": of the picture alone, neither good nor bad in itself
Item = TypeVar("Item")
Value = TypeVar("Value")


class Reward(Protocol):
    """Scores pictures; higher is better.

    ``axis`` is what it measures, ``unit`` says what a score means and its range. Inherit from this class to get
    ``report`` and ``to`` that do nothing.
    """

    axis: Axis
    unit: str

    def __call__(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        """Score N pictures (uint8 [N, H, W, 3]), row by row against ``batch`` (N rows).

        Returns float32 [N], on the CPU. A picture that can't be scored is NaN, never 0; a reward
        that is broken raises.
        """
        ...

    def report(self) -> dict[str, float]:
        """Numbers worth a look about the calls since the last report, by key; shares lie in [0, 1]."""
        return {}

    def to(self, device: torch.device | str) -> None:
        """Move the models there, for instance to the CPU while others need the memory."""


class Offloaded(Reward):
    """A reward whose models wait in the CPU's memory between calls."""

    def __init__(self, reward: Reward, device: torch.device | str):
        self.reward, self.device = reward, device
        self.axis, self.unit = reward.axis, reward.unit
        reward.to("cpu")

    def __call__(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        self.reward.to(self.device)
        try:
            return self.reward(images_NHWC, batch)
        finally:
            self.reward.to("cpu")

    def report(self) -> dict[str, float]:
        return self.reward.report()

    def to(self, device: torch.device | str) -> None:
        self.device = device


class EncodeOnce(Generic[Item, Value]):
    """``encode`` for one item at a time, remembering the last ``size`` results by key.

    Each item is encoded alone. In a batch, the last bit of a result depends on the other items, so on what was
    remembered before; a resumed run would then differ from an uninterrupted one.
    """

    def __init__(self, encode: Callable[[Item], Value], size: int):
        self._encode, self._size = encode, size
        self._values: OrderedDict[Hashable, Value] = OrderedDict()

    def __call__(self, items: Mapping[Hashable, Item]) -> dict[Hashable, Value]:
        """The results by key; only items that are not remembered are encoded."""
        values = {key: self._values[key] if key in self._values else self._encode(item) for key, item in items.items()}
        for key, value in values.items():
            self._values[key] = value
            self._values.move_to_end(key)
        while len(self._values) > self._size:
            self._values.popitem(last=False)
        return values


def digest(picture: Image.Image) -> str:
    """Equal for equal pictures: a key of their content."""
    return hashlib.sha256(f"{picture.mode} {picture.size} ".encode() + picture.tobytes()).hexdigest()


def to_pictures(images_NHWC: Tensor) -> list[Image.Image]:
    """uint8 [N, H, W, 3] -> PIL RGB pictures."""
    return [Image.fromarray(image) for image in images_NHWC.cpu().numpy()]


def to_tensor(pictures: list[Image.Image]) -> Tensor:
    """PIL RGB pictures of one size -> uint8 [N, H, W, 3]."""
    return torch.from_numpy(np.stack([np.asarray(picture.convert("RGB")) for picture in pictures]))


class FunctionReward(Reward):
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
        scores_N = reward(images_NHWC, batch.as_rgb()).float().cpu()
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
