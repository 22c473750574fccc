"""The contract of a reward."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Generic, Literal, Protocol, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cgrpo.errors import UserError
from cgrpo.types import Batch

Axis = Literal["identity", "prompt", "picture"]  # "picture": of the picture alone, neither good nor bad in itself
Item = TypeVar("Item")
Row = TypeVar("Row")


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


class Memory:
    """Where every ``EncodeOnce`` keeps what it knows; all of it goes with this object."""


_memory: ContextVar[Memory] = ContextVar("memory", default=Memory())  # noqa: B039 - one for all is what is meant


@contextmanager
def own_memory(memory: Memory) -> Iterator[None]:
    """Inside, every ``EncodeOnce`` knows what ``memory`` holds, and nothing else.

    What is known decides which items are encoded together, and that shows in a result's last bit. So whoever scores
    beside the training must neither leave anything in its memory nor push anything out, and whoever wants the same
    digits for the same batch must not know what came before.
    """
    token = _memory.set(memory)
    try:
        yield
    finally:
        _memory.reset(token)


class EncodeOnce(Generic[Item, Row]):
    """``encode`` for a list of items, remembering the last ``size`` results by key, of each memory."""

    def __init__(self, encode: Callable[[list[Item]], Iterable[Row]], size: int):
        self._encode, self._size = encode, size
        self._memories: WeakKeyDictionary[Memory, OrderedDict[Hashable, Row]] = WeakKeyDictionary()

    def __call__(self, items: Mapping[Hashable, Item]) -> dict[Hashable, Row]:
        """The results by key; only items not known are encoded, all in one call."""
        known = self._memories.setdefault(_memory.get(), OrderedDict())
        new = [key for key in items if key not in known]
        fresh = dict(zip(new, self._encode([items[key] for key in new]), strict=True)) if new else {}
        rows = {key: fresh[key] if key in fresh else known[key] for key in items}
        for key, row in rows.items():
            known[key] = row
            known.move_to_end(key)
        while len(known) > self._size:
            known.popitem(last=False)
        return rows


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
