"""The running average of the trained weights: what is evaluated, guarded, sampled from and saved, where it is on.

The optimizer goes on from the weights themselves, which jump about the average.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from torch import Tensor

from cgrpo.algorithm import join_average
from cgrpo.policies.base import Policy


class Average:
    """An average of the policy's trained weights; with ``decay`` 0 it is the policy itself, and nothing is kept.

    Its state is its ``weights``, by name; how many positions joined is the number of iterations. Alike on all
    processes, since the weights are.
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
