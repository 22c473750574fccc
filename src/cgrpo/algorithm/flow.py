"""One step of the flow: deterministic (ODE) or stochastic (SDE), and what it says about the picture.

Notation: sigma in [0, 1] is the share of noise, 1 = noise, 0 = image; x_sigma = (1 - sigma) * image + sigma * noise;
the velocity is noise - image. There is one representation of time, and it is sigma.
"""

from __future__ import annotations

import math
import sys
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["ode", "constant", "flow-grpo", "cps"]


def shifted_sigmas(
    num_steps: int, shift: float | Literal["flux", "uno"] = 3.0, tokens: int = 0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """The sigma grid, 1 = sigma_0 > ... > sigma_T = 0: shift * s / (1 + (shift - 1) * s) of s = linspace(1, 0, T + 1).

    num_steps >= 1; shift > 0, above 1 spends more steps on noise. "flux" is flux_shift(tokens); "uno" is what UNO's
    pipeline does, which divides its number of latent pixels by 256 (16 at 512 x 512, where there are 1024 tokens).
    -> sigmas [T + 1]; both ends are exact. Raises ValueError outside these ranges.
    """
    if shift in ("flux", "uno"):
        shift = flux_shift(tokens if shift == "flux" else 4 * tokens // 256)
    if num_steps < 1 or not 0 < shift < math.inf:
        raise ValueError(f"num_steps must be >= 1 and shift > 0 and finite, got {num_steps} and {shift}")
    s = torch.linspace(1, 0, num_steps + 1, dtype=torch.float64)
    return (shift * s / (shift * s + (1 - s))).to(dtype)  # so written, s = 1 gives 1 without rounding


def flux_shift(tokens: int) -> float:
    """FLUX's shift for a picture of that many tokens: e^mu, mu linear through (256, 0.5) and (4096, 1.15)."""
    return math.exp(0.5 + (1.15 - 0.5) * (tokens - 256) / (4096 - 256))


def sde_transition(
    x: Tensor,
    velocity: Tensor,
    sigma: Tensor,
    sigma_next: Tensor,
    kind: Kind = "constant",
    noise_level: float = 0.4,
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of x at sigma_next, given x and the velocity at sigma. Eq. 13.

        ode         x + v * d, std 0                          with d = sigma_next - sigma < 0
        constant    x + (v - g^2/2 * score) * d, std g * sqrt(-d)    with score = -(x + (1 - sigma) * v) / sigma
                    and g = noise_level: an Euler-Maruyama step of an SDE with the ODE's marginals (DanceGRPO)
        flow-grpo   the same with g = noise_level * sqrt(sigma / (1 - sigma)); at sigma = 1, where that is infinite,
                    sigma_next stands in for the sigma of 1 - sigma
        cps         std sigma_next * sin(a * pi/2), mean (1 - sigma_next) * x0 + sigma_next * cos(a * pi/2) * x1, with
                    a = noise_level and x0, x1 the image and noise that velocity points to (Flow-CPS); keeps the
                    amount of noise right, not the marginals

    x, velocity [N, ...]; sigma, sigma_next 0-dim or [N], 0 <= sigma_next < sigma <= 1, and sigma_next < 1 - a grid
    ends with kind "ode". noise_level > 0, for cps <= 1; "ode" ignores it.
    -> mean as x, std broadcastable to x; computed in x's dtype but never below float32.
    Raises ValueError outside these ranges. Sigmas on a GPU are not checked: reading them would make the host wait.
    """
    if x.shape != velocity.shape:
        raise ValueError(f"x {list(x.shape)} and velocity {list(velocity.shape)} must have one shape")
    dtype = torch.promote_types(x.dtype, torch.float32)
    x, velocity = x.to(dtype), velocity.to(dtype)
    s, s_next = _along_batch(sigma, x), _along_batch(sigma_next, x)
    if not s.is_cuda and not ((s_next >= 0) & (s_next < s) & (s <= 1)).all():
        raise ValueError(f"sigmas must satisfy 0 <= sigma_next < sigma <= 1, got {sigma} -> {sigma_next}")
    if kind != "ode" and not 0 < noise_level <= (1 if kind == "cps" else sys.float_info.max):
        raise ValueError(f"noise_level {noise_level} is out of range for kind {kind!r}")
    d = s_next - s
    if kind == "ode":
        return x + velocity * d, torch.zeros_like(d)
    if kind == "cps":
        x0, x1 = predict_x0(x, velocity, sigma), x + (1 - s) * velocity
        angle = noise_level * math.pi / 2
        return (1 - s_next) * x0 + s_next * math.cos(angle) * x1, s_next * math.sin(angle)
    if kind == "constant":
        g = torch.full_like(s, noise_level)
    elif kind == "flow-grpo":
        g = noise_level * (s / (1 - torch.where(s == 1, s_next, s))).sqrt()
    else:
        raise ValueError(f"unknown kind {kind!r}; known: ode, constant, flow-grpo, cps")
    score = -(x + (1 - s) * velocity) / s
    return x + (velocity - g.square() / 2 * score) * d, g * (-d).sqrt()


def gaussian_logp(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Log-density of N(mean, std^2) at x, averaged over all axes but the first.

        -(x - mean)^2 / (2 std^2) - ln std - ln sqrt(2 pi)

    The average, not the sum: the release's clip range of 1e-4 belongs to that scale, whatever the picture's size.
    x, mean [N, ...]; std > 0, broadcastable to x -> logp_N [N]. Raises ValueError outside these ranges; so for an
    ODE step, which has no log-probability.
    """
    if x.shape != mean.shape:
        raise ValueError(f"x {list(x.shape)} and mean {list(mean.shape)} must have one shape")
    if not std.is_cuda and not (std > 0).all():  # on a GPU the host would wait for it
        raise ValueError("std must be > 0: a deterministic step has no log-probability")
    logp = -((x - mean) / std).square() / 2 - std.log() - math.log(2 * math.pi) / 2
    return logp.reshape(len(x), -1).mean(dim=1)


def predict_x0(x: Tensor, velocity: Tensor, sigma: Tensor) -> Tensor:
    """The image the velocity points to from x: x - sigma * velocity.

    x, velocity [N, ...], sigma 0-dim or [N] -> as x. Raises ValueError for other shapes.
    """
    if x.shape != velocity.shape:
        raise ValueError(f"x {list(x.shape)} and velocity {list(velocity.shape)} must have one shape")
    return x - _along_batch(sigma, x) * velocity


def _along_batch(sigma: Tensor, x: Tensor) -> Tensor:
    """sigma in x's dtype, shaped to multiply x [N, ...] sample by sample."""
    if sigma.ndim != 0 and sigma.shape != x.shape[:1]:
        raise ValueError(f"sigma must be 0-dim or [N] = [{len(x)}], got {list(sigma.shape)}")
    return sigma.to(x).reshape(sigma.shape + (1,) * (x.ndim - 1) if sigma.ndim else ())
