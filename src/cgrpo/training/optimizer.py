"""The optimizer that all methods share: AdamW on the adapter, its learning rate over a run, its step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from cgrpo.algorithm import learning_rate_factor
from cgrpo.config import Training
from cgrpo.training.checks import check_finite
from cgrpo.training.runtime import Runtime


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


def step(
    optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], settings: Training, runtime: Runtime
) -> float:
    """Sum gradients over processes, clip, step; returns the gradient's norm before clipping."""
    runtime.sum_gradients(parameters)
    norm = torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm).item()
    check_finite(norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm
