"""Classifier-free guidance: away from what the negative prompt asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

import torch
from torch import Tensor

from cgrpo.policies.conditions import TensorCondition

GuidanceGradient = Literal["both", "conditional"]

T = TypeVar("T", bound=TensorCondition)


def guided(
    forward: Callable[[Tensor, Tensor, T], Tensor],
    x_NLC: Tensor,
    sigma_N: Tensor,
    cond: T,
    negative: T,
    scale_N: Tensor,
    gradient: GuidanceGradient = "both",
) -> Tensor:
    """v = v_negative + scale * (v_cond - v_negative), sample by sample; arXiv 2207.12598 with w = scale - 1.

    forward    the velocity at (x_NLC, sigma_N, condition)
    scale_N    1 gives v_cond
    gradient   "both": through both halves, which go through the model in one batch. "conditional": the negative half
               is a constant and goes before, by itself: a backward costs and keeps no more than without guidance

    Whether gradients are asked for or not, the model sees the same batches: rollout and replay agree.
    """
    if gradient == "conditional":
        with torch.no_grad():
            away_NLC = forward(x_NLC, sigma_N, negative)
        toward_NLC = forward(x_NLC, sigma_N, cond)
    else:
        both = forward(torch.cat((x_NLC, x_NLC)), torch.cat((sigma_N, sigma_N)), cond.join(negative))
        toward_NLC, away_NLC = both.chunk(2)
    dtype = torch.promote_types(x_NLC.dtype, torch.float32)
    toward_NLC, away_NLC = toward_NLC.to(dtype), away_NLC.to(dtype)
    return (away_NLC + scale_N.to(dtype)[:, None, None] * (toward_NLC - away_NLC)).to(x_NLC.dtype)
