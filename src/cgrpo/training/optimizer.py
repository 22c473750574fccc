"""What all methods do with the weights: AdamW, its learning rate over a run, their average, updates left out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from cgrpo.algorithm import join_average, learning_rate_factor
from cgrpo.config import Training
from cgrpo.policies.base import Policy

FIRST, EARLY = 100, 10  # updates whose norms the median is over, and the fewest that it is taken of


def make_optimizer(settings: Training, parameters: Sequence[nn.Parameter]) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        parameters, lr=settings.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, settings: Training, iteration: int) -> float:
    """That of ``iteration``; returns it. A function of the iteration alone, so nothing has to be saved."""
    factor = learning_rate_factor(iteration, settings.iterations, settings.schedule, settings.warmup)
    for group in optimizer.param_groups:
        group["lr"] = settings.learning_rate * factor
    return settings.learning_rate * factor


class Average:
    """A running average of the policy's trained weights: what is evaluated, guarded, sampled from and saved.

    The optimizer continues from the weights themselves, which jump about the average. With ``decay`` 0 the average is
    the policy itself, and nothing is kept. ``weights`` by name; equal on all processes, since the policy's are.
    """

    def __init__(self, policy: Policy, decay: float):
        self.policy, self.decay = policy, decay
        own = policy.trainable_parameters() if decay else {}
        self.weights = {name: parameter.detach().clone() for name, parameter in own.items()}

    def join(self, count: int) -> None:
        """Let the weights after ``count`` iterations join."""
        own = self.policy.trainable_parameters() if self.weights else {}
        for name, average in self.weights.items():
            join_average(average, own[name].detach(), count, self.decay)

    def shown(self) -> AbstractContextManager[None]:
        """Within it the policy has the average's weights."""
        return self.policy.using(self.weights) if self.weights else nullcontext()

    def state(self, name: str) -> dict[str, Tensor]:
        """For a checkpoint, under ``name``, to be written into when it is read."""
        return {f"{name}.{key}": average for key, average in self.weights.items()}


class Runaway:
    """Keeps updates away from the weights whose gradient is far larger than a run's usual, and ends a run of them.

    Before a run on the forward process collapses, the gradient's norm rises several-fold, within a few iterations or
    over fifty. So an update with a norm above ``limit`` times the median of the run's first hundred is left out (a
    median that went along would follow a slow rise); after ``patience`` iterations in a row without any update the run
    is to stop, with the weights of before. Alike on all processes, since the norms are.
    """

    def __init__(self, limit: float, patience: int):
        self.limit, self.patience = limit, patience
        self.norms = torch.full((FIRST,), math.nan, dtype=torch.float64)  # the first that were accepted
        self.accepted = torch.zeros((), dtype=torch.long)
        self.silent = torch.zeros((), dtype=torch.long)  # iterations in a row without an update
        self._taken = self._left_out = 0

    def accepts(self, norm: float) -> bool:
        """Whether the update with a gradient of this norm is to be made."""
        if self.accepted >= EARLY and norm > self.limit * self.usual:
            self._left_out += 1
            return False
        if norm > 0:  # without any credit there is no gradient, and nothing to learn about its norm
            if self.accepted < FIRST:
                self.norms[self.accepted] = norm
            self.accepted += 1
        self._taken += 1
        return True

    def iteration_ends(self) -> dict[str, float]:
        """What to log of the iteration."""
        numbers = {"updates_left_out": float(self._left_out)}
        self.silent.fill_(0 if self._taken else int(self.silent) + 1)
        self._taken = self._left_out = 0
        return numbers

    @property
    def usual(self) -> float:
        """The median norm of the first updates; NaN before there is one."""
        return self.norms.nanmedian().item()

    @property
    def stopped(self) -> str:
        """Why the run is to end early, "" while it isn't."""
        if self.silent < self.patience:
            return ""
        return (
            f"stopped: for {self.patience} iterations in a row the gradient's norm was above {self.limit:g} times its "
            f"early median ({self.usual:.2g}) and the updates were left out; the adapter is the one from before"
        )

    def state(self) -> dict[str, Tensor]:
        """For a checkpoint, to be written into when it is read."""
        return {"runaway.norms": self.norms, "runaway.accepted": self.accepted, "runaway.silent": self.silent}
