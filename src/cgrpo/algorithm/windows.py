"""Which steps carry noise, and which (sample, step) pairs are trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Window:
    """The plan of one rollout of N samples over K steps.

    stochastic_K [K]     bool: the step is drawn from the SDE; the others follow the ODE. The same for all samples,
                         so that the samples of a group differ by their draws alone
    trained_NK   [N, K]  bool: the transition enters the objective; only stochastic steps can

    The last transition (to sigma = 0) is never stochastic, hence never trained. At least one pair is trained.
    Raises ValueError when a plan breaks these rules.
    """

    stochastic_K: Tensor
    trained_NK: Tensor

    def __post_init__(self) -> None:
        if self.stochastic_K.dtype != torch.bool or self.trained_NK.dtype != torch.bool:
            raise ValueError("stochastic_K and trained_NK must be bool")
        if self.stochastic_K.ndim != 1 or self.trained_NK.shape[1:] != self.stochastic_K.shape:
            shapes = f"{list(self.stochastic_K.shape)} and {list(self.trained_NK.shape)}"
            raise ValueError(f"stochastic_K and trained_NK must be [K] and [N, K], got {shapes}")
        if len(self.stochastic_K) == 0 or self.stochastic_K[-1]:
            raise ValueError("the last transition is deterministic; it cannot be stochastic")
        if (self.trained_NK & ~self.stochastic_K).any():
            raise ValueError("only stochastic steps can be trained")
        if not self.trained_NK.any():
            raise ValueError("no (sample, step) pair is trained")

    @property
    def lead(self) -> int:
        """Steps before the first stochastic one: samples of one start and one condition are alike until there."""
        return int(self.stochastic_K.nonzero()[0])


def all_steps(num_steps: int, num_samples: int) -> Window:
    """Every step but the last is stochastic and trained, for every sample (DanceGRPO, Flow-GRPO).

    num_steps >= 2, num_samples >= 1. Raises ValueError outside these ranges.
    """
    return sliding_window(num_steps, num_samples, start=0, size=num_steps - 1)


def random_fraction(
    num_steps: int, num_samples: int, fraction: float = 0.6, *, generators: Sequence[torch.Generator]
) -> Window:
    """Every step but the last is stochastic; each sample trains its own random share of them (the release's way).

    max(1, int(fraction * (T - 1))) steps per sample, drawn from that sample's generator: what is trained is a
    function of whatever seeds the generators - run, iteration, prompt - and not of the process or the batch.

    num_steps >= 2, num_samples >= 1, 0 < fraction <= 1, one CPU generator per sample.
    Raises ValueError outside these ranges.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be in (0, 1], got {fraction}")
    if len(generators) != num_samples:
        raise ValueError(f"{num_samples} samples need one generator each, got {len(generators)}")
    everything = all_steps(num_steps, num_samples)
    count = max(1, int(fraction * (num_steps - 1)))
    trained_NK = torch.zeros_like(everything.trained_NK)
    for trained_K, generator in zip(trained_NK, generators, strict=True):
        trained_K[torch.randperm(num_steps - 1, generator=generator)[:count]] = True
    return Window(everything.stochastic_K, trained_NK)


def sliding_window(num_steps: int, num_samples: int, start: int, size: int) -> Window:
    """Steps start .. start + size - 1 are stochastic and trained for every sample, the others ODE (MixGRPO).

    num_samples >= 1, start >= 0, size >= 1, start + size <= num_steps - 1. Raises ValueError outside these ranges.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be >= 1, got {num_samples}")
    if start < 0 or size < 1 or start + size > num_steps - 1:
        raise ValueError(
            f"window [{start}, {start + size}) does not fit the first {num_steps - 1} of {num_steps} steps"
        )
    stochastic_K = torch.zeros(num_steps, dtype=torch.bool)
    stochastic_K[start : start + size] = True
    return Window(stochastic_K, stochastic_K.repeat(num_samples, 1))


def window_start(iteration: int, num_steps: int, size: int, stride: int = 1, every: int = 1) -> int:
    """Where the sliding window begins: `stride` steps on after every `every` iterations, then round again (MixGRPO).

    The last position is pushed back to fit, so that with stride <= size each of the first T - 1 steps has its turn.
    iteration >= 0, 1 <= size <= num_steps - 1, stride >= 1, every >= 1. Raises ValueError outside these ranges.
    """
    if iteration < 0 or not 1 <= size <= num_steps - 1 or stride < 1 or every < 1:
        values = f"iteration {iteration}, num_steps {num_steps}, size {size}, stride {stride}, every {every}"
        raise ValueError(f"need iteration >= 0, 1 <= size < num_steps, stride >= 1, every >= 1; got {values}")
    last = num_steps - 1 - size
    positions = -(-last // stride) + 1
    return min(iteration // every % positions * stride, last)
