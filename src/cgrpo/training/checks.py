"""Is it training? Checks that are on by default and stop a run that only looks busy."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cgrpo.errors import UserError


def check_ratio(drift: float, limit: float) -> None:
    """Called when some process saw |ratio - 1| above ``limit`` before the first update after a rollout."""
    raise UserError(
        f"rollout and replay disagree: |ratio - 1| reached {drift:.2e} before the first update (limit {limit:.0e}); "
        "the policy is not deterministic or its precision too low: use policy.dtype = float32, "
        "or raise objective.max_ratio_drift if the drift is only rounding"
    )


def check_finite(norm: float) -> None:
    if not math.isfinite(norm):
        raise UserError(
            f"the gradient's norm is {norm}; lower training.learning_rate, or look for a broken reward in "
            "metrics.jsonl, or for a model that gives NaN"
        )


def norms(parameters: Sequence[nn.Parameter]) -> Tensor:
    """The parameters' norms, one vector: it changes when any parameter does."""
    return torch.stack([p.detach().double().norm() for p in parameters])


def check_moved(before: Tensor, parameters: Sequence[nn.Parameter], credit_seen: bool) -> None:
    """After the first iteration: an adapter that got credit must have moved."""
    if credit_seen and torch.equal(before, norms(parameters)):
        raise UserError("the adapter did not move in the first iteration; is training.learning_rate far too small?")


def check_agreement(agree: bool) -> None:
    if not agree:
        raise UserError(
            "the processes' adapters differ: gradients were not summed alike; resume from the last checkpoint"
        )
