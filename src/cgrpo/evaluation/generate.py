"""Pictures for evaluation: the plain ODE, initial noise a function of the task alone."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from cgrpo.algorithm import integrate
from cgrpo.data import derive
from cgrpo.policies import FluxPolicy
from cgrpo.types import Batch


def generate(policy: FluxPolicy, batch: Batch, sigmas: Tensor, seed: int = 0, chunk: int = 96) -> Tensor:
    """One picture a task, uint8 [N, H, W, 3]. The same (seed, task id) always starts from the same noise."""
    pictures = []
    for first in range(0, len(batch), chunk):
        part = batch.select(slice(first, first + chunk))
        noise = [torch.randn(policy.latent_shape, generator=derive("evaluation", seed, name)) for name in part.ids]
        cond = policy.encode(part)
        x_NLC = torch.stack(noise).to(policy.device, policy.dtype)
        pictures.append(policy.decode(integrate(functools.partial(policy.velocity, cond=cond), x_NLC, sigmas)))
    return torch.cat(pictures)
