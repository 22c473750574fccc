"""What every method's trainer is to a run: an optimizer, its parameters, and one ``Iteration`` after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from cgrpo.types import Batch


@dataclass(frozen=True)
class Iteration:
    """What one iteration leaves for the record: numbers, and this process's pictures."""

    number: int
    metrics: dict[str, float]
    batch: Batch
    images_NHWC: Tensor


class Trainer(Protocol):
    @property
    def parameters(self) -> Sequence[nn.Parameter]: ...

    @property
    def optimizer(self) -> torch.optim.Optimizer: ...

    def run(self, first: int) -> Iterator[Iteration]:
        """Iterations ``first`` .. the last; an iteration's metrics have "gradient_norm", and "reward/NAME/mean"."""
        ...
