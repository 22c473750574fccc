"""What every method's trainer is to a run: parameters, their optimizer and average, one ``Iteration`` after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from cgrpo.training.average import Average
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

    @property
    def average(self) -> Average: ...

    @property
    def stopped(self) -> str:
        """Why the run is to end early, "" while it isn't."""
        ...

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps beside adapter and optimizer, to be written into when it is read."""
        ...

    def run(self, first: int) -> Iterator[Iteration]:
        """Iterations ``first`` .. the last; an iteration's metrics have "gradient_norm", and "reward/NAME/mean"."""
        ...
