"""How far an optimizer's step goes as a run goes on, and what is kept of its many positions."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Decay = Literal["constant", "linear", "cosine"]


def learning_rate_factor(iteration: int, iterations: int, schedule: Decay = "constant", warmup: int = 0) -> float:
    """What the learning rate is multiplied by in an iteration.

        rising    (iteration + 1) / (warmup + 1)            in the first ``warmup`` iterations
        constant  1                                          and, with p = share of the rest that is done, in 0 .. 1:
        linear    1 - p
        cosine    (1 + cos(pi * p)) / 2

    p is 0 in the first iteration after the warm-up and would be 1 in the one after the last, so no step is lost.
    0 <= iteration < iterations, warmup >= 0 -> above 0, at most 1. Raises ValueError outside these ranges.
    """
    if not 0 <= iteration < iterations or warmup < 0:
        raise ValueError(f"need 0 <= iteration < iterations, warmup >= 0; got {iteration}, {iterations}, {warmup}")
    if iteration < warmup:
        return (iteration + 1) / (warmup + 1)
    done = (iteration - warmup) / (iterations - warmup)
    match schedule:
        case "constant":
            return 1.0
        case "linear":
            return 1 - done
        case "cosine":
            return (1 + math.cos(math.pi * done)) / 2
    raise ValueError(f"unknown schedule {schedule!r}; known: constant, linear, cosine")


def average_decay(count: int, decay: float) -> float:
    """The share of the old average that is kept when the ``count``-th position (from 1) joins it.

        min(decay, (count - 1) / (count + 8))

    0 for the first, so nothing of the start is kept; then the average spans about a ninth of the positions so far,
    until it spans 1 / (1 - decay) of them: early in a run it is not held back by its memory.
    count >= 1, 0 <= decay < 1. Raises ValueError outside these ranges.
    """
    if count < 1 or not 0 <= decay < 1:
        raise ValueError(f"need count >= 1 and 0 <= decay < 1, got {count} and {decay}")
    return min(decay, (count - 1) / (count + 8))


@torch.no_grad()
def join_average(average: Tensor, position: Tensor, count: int, decay: float) -> None:
    """Let the ``count``-th position join the average, in place: decay * average + (1 - decay) * position, with
    ``average_decay`` for the decay. One shape; the average's dtype. Raises ValueError for other shapes."""
    if average.shape != position.shape:
        raise ValueError(f"average {list(average.shape)} and position {list(position.shape)} must have one shape")
    average.lerp_(position.to(average), 1 - average_decay(count, decay))
