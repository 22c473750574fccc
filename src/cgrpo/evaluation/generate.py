"""Pictures for evaluation and for users: the plain ODE."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from cgrpo.algorithm import integrate
from cgrpo.data import derive
from cgrpo.policies.base import Policy
from cgrpo.types import Batch


def generate(policy: Policy, batch: Batch, sigmas: Tensor, seed: int = 0, chunk: int = 96) -> Tensor:
    """One picture a task, uint8 [N, H, W, 3]. The same (seed, task id) always starts from the same noise."""
    noise = [torch.randn(policy.latent_shape, generator=derive("evaluation", seed, name)) for name in batch.ids]
    return follow(policy, batch, torch.stack(noise), sigmas, chunk)


def follow(policy: Policy, batch: Batch, x_NLC: Tensor, sigmas: Tensor, chunk: int = 96) -> Tensor:
    """The pictures that the ODE reaches from the noise ``x_NLC``, one a task: uint8 [N, H, W, 3]."""
    pictures = []
    for first in range(0, len(batch), chunk):
        rows = slice(first, first + chunk)
        velocity = functools.partial(policy.velocity, cond=policy.encode(batch.select(rows)))
        pictures.append(policy.decode(integrate(velocity, x_NLC[rows].to(policy.device, policy.dtype), sigmas)))
    return torch.cat(pictures)
