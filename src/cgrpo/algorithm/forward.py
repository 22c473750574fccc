"""Reinforcement learning on the forward process: finished pictures are noised again, and the credit says which of
them the velocity should be drawn to and which it should shun.

No transition has to be replayed, so a rollout may use any sampler and any number of steps. The credit at a noise
level is the credit table's at the step whose interval holds the level (``steps_at``), so every credit function,
SARS among them, means here what it means for GRPO; a schedule of weights is a weight over noise levels.
Its *average* weight depends on how levels are drawn: see ``draw_levels``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from cgrpo.algorithm.flow import predict_x0
from cgrpo.algorithm.objective import clipped_surrogate, flow_matching_loss

Spread = Literal["uniform", "steps", "logit-normal"]

TINY = 1e-5  # a predicted picture that is off by less, on average, is as good as right


def draw_levels(
    generators: Sequence[torch.Generator],
    levels: int,
    spread: Spread = "uniform",
    sigmas: Tensor | None = None,
    low: float = 0.02,
    high: float = 0.98,
) -> Tensor:
    """Noise levels, ``levels`` for each generator: the l-th lies in the l-th of equal shares of the distribution.

        uniform       between low and high: every level counts alike
        steps         every step of ``sigmas`` (falling from 1 to 0) counts alike, uniform within it: the average of a
                      weight schedule over levels is then its average over steps, but for what low and high cut off
        logit-normal  sigmoid of a standard normal: the middle counts most

    The last two are clamped to low .. high. One generator stands for whatever shares its levels: a group, or a sample.
    levels >= 1, 0 < low < high < 1 -> sigma_PL [P, levels], rising in each row, float32 on the CPU.
    Raises ValueError outside these ranges.
    """
    if levels < 1 or not 0 < low < high < 1:
        raise ValueError(f"need levels >= 1 and 0 < low < high < 1, got {levels}, {low}, {high}")
    if spread not in get_args(Spread):
        raise ValueError(f"unknown spread {spread!r}; known: {', '.join(get_args(Spread))}")
    drawn_PL = torch.stack([torch.rand(levels, generator=generator) for generator in generators])
    share_PL = (torch.arange(levels) + drawn_PL) / levels
    if spread == "uniform":
        return low + (high - low) * share_PL
    if spread == "logit-normal":
        return torch.special.ndtri(share_PL).sigmoid().clamp(low, high)
    if sigmas is None or sigmas.ndim != 1 or len(sigmas) < 2:
        raise ValueError('spread "steps" needs the grid of sigmas [K + 1]')
    grid = sigmas.flip(0).to(share_PL)  # rising from 0 to 1
    place_PL = share_PL * (len(grid) - 1)
    below_PL = place_PL.long().clamp(max=len(grid) - 2)
    return grid[below_PL].lerp(grid[below_PL + 1], place_PL - below_PL).clamp(low, high)


def steps_at(sigma_M: Tensor, sigmas: Tensor) -> Tensor:
    """The step k with sigmas[k] >= sigma > sigmas[k + 1]: the sampler's step that passes through the level.

    sigma_M [M] in (0, 1]; sigmas [K + 1] falling from 1 to 0 -> step_M [M] long, 0 .. K - 1.
    Raises ValueError for a level outside the grid.
    """
    if not ((sigma_M > sigmas[-1]) & (sigma_M <= sigmas[0])).all():
        raise ValueError(f"levels must lie in ({sigmas[-1]}, {sigmas[0]}], got {sigma_M.tolist()}")
    return (sigmas[:-1] >= sigma_M[:, None]).sum(1) - 1


def noised(x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """(1 - sigma) * x0 + sigma * noise. x0, noise [N, ...], sigma [N] in [0, 1] -> as x0."""
    if x0.shape != noise.shape or sigma.shape != x0.shape[:1]:
        shapes = f"{list(x0.shape)}, {list(noise.shape)}, {list(sigma.shape)}"
        raise ValueError(f"x0 and noise must have one shape [N, ...] and sigma be [N], got {shapes}")
    share = _along(sigma, x0)
    return (1 - share) * x0 + share * noise


def optimality(credit: Tensor) -> Tensor:
    """The probability r that a sample counts as good: 1/2 + credit/2, within 0 .. 1. DiffusionNFT, Section 3.

    Credit beyond +-1 says no more than +-1: of the loss's scale only this clamp depends on the credit's.
    """
    return (0.5 + credit / 2).clamp(0, 1)


def nft_loss(
    velocity: Tensor,
    old_velocity: Tensor,
    x: Tensor,
    x0: Tensor,
    sigma: Tensor,
    credit: Tensor,
    beta: float = 1.0,
    normalise: bool = True,
) -> Tensor:
    """DiffusionNFT's loss, per sample (arXiv 2509.16117, Section 3.2 and its practical form).

        r * error(v+) + (1 - r) * error(v-),    v+ = (1 - beta) * v_old + beta * v    the implicit positive policy
                                                v- = (1 + beta) * v_old - beta * v    the implicit negative policy

    r = optimality(credit); error(u) is the mean squared error of the picture that u points to, x - sigma * u, against
    x0, with ``normalise`` over its own mean absolute error, which carries no gradient: so no level outweighs
    the others. Without it the minimum is v_old + (2 / beta) * Cov(r, noise - x0 | x); at v = v_old the
    gradient is beta * credit * sigma^2 times that of the flow-matching loss (credit within +-1), so 0 for credit 0.
    Away from v_old it pulls back, with a strength that does not depend on the credit.

    velocity (with gradient), old_velocity (without), x, x0 [N, ...]; sigma, credit [N]; 0 < beta -> [N], in float32
    at least. Raises ValueError outside these ranges.
    """
    if not 0 < beta < math.inf:
        raise ValueError(f"beta must be > 0 and finite, got {beta}")
    _check(velocity, old_velocity, x0, credit)
    dtype = torch.promote_types(velocity.dtype, torch.float32)
    velocity, old, x, x0 = (t.to(dtype) for t in (velocity, old_velocity.detach(), x, x0))
    good = _error(predict_x0(x, (1 - beta) * old + beta * velocity, sigma), x0, normalise)
    bad = _error(predict_x0(x, (1 + beta) * old - beta * velocity, sigma), x0, normalise)
    share = optimality(credit.to(dtype))
    return share * good + (1 - share) * bad


def awm_loss(
    velocity: Tensor, old_velocity: Tensor, x0: Tensor, noise: Tensor, credit: Tensor, clip: float = 1e-3
) -> Tensor:
    """Advantage-weighted matching, per sample (arXiv 2509.25050): the flow-matching loss stands for -log p.

        -min(rho * A, clip(rho, 1 - clip, 1 + clip) * A),    rho = exp(error(v_old) - error(v))

    with error = ``flow_matching_loss`` against the same noise and level for both. At v = v_old rho is 1 and the
    gradient is the credit times that of the flow-matching loss. What is pushed away has no minimum: clipping is
    all that holds it, and only until the next rollout.

    velocity (with gradient), old_velocity (without), x0, noise [N, ...]; credit [N]; 0 < clip < 1 -> [N].
    Raises ValueError outside these ranges.
    """
    _check(velocity, old_velocity, x0, credit)
    old_error = flow_matching_loss(old_velocity.detach(), x0, noise)
    return clipped_surrogate(-flow_matching_loss(velocity, x0, noise), -old_error, credit.to(old_error), clip)


def velocity_gap(velocity: Tensor, reference: Tensor) -> Tensor:
    """Mean squared difference of two velocities, per sample: the KL divergence of their processes but for a weight.

    velocity (with gradient), reference [N, ...] -> [N], in float32 at least. Raises ValueError for other shapes.
    """
    if velocity.shape != reference.shape:
        raise ValueError(f"velocity {list(velocity.shape)} and reference {list(reference.shape)} must have one shape")
    dtype = torch.promote_types(velocity.dtype, torch.float32)
    return _mean((velocity.to(dtype) - reference.to(dtype)).square())


def _error(predicted: Tensor, x0: Tensor, normalise: bool) -> Tensor:
    gap = predicted - x0
    return _mean(gap.square()) / _mean(gap.detach().abs()).clamp(min=TINY) if normalise else _mean(gap.square())


def _check(velocity: Tensor, old_velocity: Tensor, x0: Tensor, credit: Tensor) -> None:
    if not velocity.shape == old_velocity.shape == x0.shape or credit.shape != x0.shape[:1]:
        shapes = f"{list(velocity.shape)}, {list(old_velocity.shape)}, {list(x0.shape)}, {list(credit.shape)}"
        raise ValueError(f"velocity, old_velocity and x0 must have one shape [N, ...] and credit be [N], got {shapes}")


def _along(values: Tensor, x: Tensor) -> Tensor:
    return values.to(x).reshape(-1, *(1,) * (x.ndim - 1))


def _mean(values: Tensor) -> Tensor:
    """Over all axes but the first."""
    return values.reshape(len(values), -1).mean(dim=1)
