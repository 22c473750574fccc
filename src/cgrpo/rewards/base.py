"""The contract of a reward. Imports torch and PIL only when they are needed: settings are read without them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, Literal, Protocol, TypeVar

from cgrpo.errors import UserError
from cgrpo.types import Batch

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor

Axis = Literal["identity", "prompt", "picture"]  # "picture": of the picture alone, neither good nor bad in itself
Input = TypeVar("Input")
Value = TypeVar("Value")


class Reward(Protocol):
    """Scores pictures; higher is better.

    ``axis`` is what it measures, ``unit`` says what a score means and its range. A subclass says how in ``score``.
    """

    axis: Axis
    unit: str

    background: bool = False
    """Training lets it score in a thread, while the policy samples the next groups: it asks another machine, say, and
    uses neither the policy's device nor torch's global random state. Its calls never overlap."""

    def __call__(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        """Score N pictures (uint8 [N, H, W, 3]), row by row against ``batch`` (N rows).

        Returns float32 [N], on the CPU. A picture that can't be scored is NaN, never 0; a reward
        that is broken raises. Raises ValueError unless there are as many pictures as tasks.
        """
        if len(images_NHWC) != len(batch):
            raise ValueError(f"{len(images_NHWC)} pictures for {len(batch)} tasks")
        return self.score(images_NHWC, batch) if len(batch) else images_NHWC.new_empty(0).float().cpu()

    def score(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        """``__call__``, for N of at least 1."""
        ...

    def each(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        """The score of each reference's subject [N, S], NaN beyond a task's last reference.

        A reward that has one score for all of a task's references leaves this out. Several subjects: a task's
        ``phrases`` say which is which.
        """
        raise TypeError(f"{type(self).__name__} has one score for all of a task's references")

    def report(self) -> dict[str, float]:
        """Numbers for the log about the calls since the last report, by name; shares lie in [0, 1]."""
        return {}

    def to(self, device: torch.device | str) -> None:
        """Move the models there, for instance to the CPU while others need the memory."""


class Offloaded(Reward):
    """A reward whose models wait in the CPU's memory between calls."""

    def __init__(self, reward: Reward, device: torch.device | str):
        self.reward, self.device = reward, device
        self.axis, self.unit = reward.axis, reward.unit
        reward.to("cpu")

    def score(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        with self._on_device():
            return self.reward(images_NHWC, batch)

    def each(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        with self._on_device():
            return self.reward.each(images_NHWC, batch)

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        self.reward.to(self.device)
        try:
            yield
        finally:
            self.reward.to("cpu")

    def report(self) -> dict[str, float]:
        return self.reward.report()

    def to(self, device: torch.device | str) -> None:
        self.device = device


class EncodeOnce(Generic[Input, Value]):
    """``encode`` for one input at a time, remembering the last ``size`` results by key.

    Each input is encoded alone. In a batch, the last bit of a result depends on the other inputs, so on what was
    remembered before; a resumed run would then differ from an uninterrupted one.
    """

    def __init__(self, encode: Callable[[Input], Value], size: int = 4096):
        self._encode, self._size = encode, size
        self._values: OrderedDict[Hashable, Value] = OrderedDict()

    def __call__(self, inputs: Mapping[Hashable, Input]) -> dict[Hashable, Value]:
        """The results by key; only inputs that are not remembered are encoded."""
        values = {key: self._values[key] if key in self._values else self._encode(one) for key, one in inputs.items()}
        for key, value in values.items():
            self._values[key] = value
            self._values.move_to_end(key)
        while len(self._values) > self._size:
            self._values.popitem(last=False)
        return values


def to_pictures(images_NHWC: Tensor) -> list[Image]:
    """uint8 [N, H, W, 3] -> PIL RGB pictures."""
    from PIL import Image

    return [Image.fromarray(image) for image in images_NHWC.cpu().numpy()]


def to_tensor(pictures: list[Image]) -> Tensor:
    """PIL RGB pictures of one size -> uint8 [N, H, W, 3]."""
    import numpy as np
    import torch

    return torch.from_numpy(np.stack([np.asarray(picture.convert("RGB")) for picture in pictures]))


@contextmanager
def failing(what: str) -> Iterator[None]:
    """Turn whatever other people's code raises within, SystemExit too, into a UserError of one line."""
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        first_line = str(error).partition("\n")[0]
        raise UserError(f"{what}: {type(error).__name__}{first_line and f': {first_line}'}") from error


class FunctionReward(Reward):
    """A user's own ``function(pictures, batch) -> N scores`` (floats; NaN or None = could not be scored)."""

    unit = "as the function defines it"

    def __init__(self, function: Callable[[list[Image], Batch], object], axis: Axis, background: bool = False):
        self.function = function
        self.axis: Axis = axis
        self.background = background

    def score(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        import numpy as np
        import torch

        with torch.no_grad():
            scores = self.function(to_pictures(images_NHWC), batch)
        if isinstance(scores, torch.Tensor):
            return scores.detach().float().cpu()
        return torch.as_tensor(np.asarray(scores, dtype=np.float32))


def scored(name: str, reward: Reward, images_NHWC: Tensor, batch: Batch) -> Tensor:
    """``reward`` on N pictures, checked: float32 [N], infinite scores made NaN. A reward that raises is a UserError."""
    with failing(f"reward {name!r} failed"):
        scores_N = reward(images_NHWC, batch.as_rgb()).float().cpu()
    if scores_N.shape != (len(images_NHWC),):
        raise UserError(
            f"reward {name!r} returned scores of shape {list(scores_N.shape)} for {len(images_NHWC)} pictures"
        )
    return scores_N.masked_fill(~scores_N.isfinite(), float("nan"))
