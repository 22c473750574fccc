"""Sampling with a trace, its replay with gradient, and plain integration. One transition serves the first two.

Because rollout and replay evaluate the very same function, the ratio of their probabilities is 1 until the policy's
first update, whatever the policy is. A ratio that is not 1 there is an error in the policy or its conditions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from cgrpo.algorithm.flow import Kind, gaussian_logp, sde_transition
from cgrpo.algorithm.windows import Window
from cgrpo.types import Rollout

Velocity = Callable[[Tensor, Tensor], Tensor]
"""(x_NLC, sigma_N) -> v_NLC = noise - image. sigma_N has x's dtype; the result may be of lower precision."""

Noise = Callable[[int], Tensor]
"""true step k -> standard normal [N, L, C]"""


def evaluated_once(velocity: Velocity, counts: Sequence[int]) -> Velocity:
    """A velocity that evaluates runs of equal inputs once: ``counts`` are the runs' lengths, in order.

    velocity is bound to the conditions of each run's first input. The result takes x_BLC and sigma_B, B = sum(counts),
    in which a run's rows are equal, conditions included -> v_BLC. Its gradient is exact: a backward through a run's one
    evaluation takes the sum of the run's output gradients, summed in one order on every device.
    """
    counts = list(counts)
    if max(counts) == 1:
        return velocity

    def spread(x_BLC: Tensor, sigma_B: Tensor) -> Tensor:
        v_ULC = velocity(firsts(x_BLC, counts), firsts(sigma_B, counts))
        return torch.cat([v_LC.expand(count, -1, -1) for v_LC, count in zip(v_ULC.split(1), counts, strict=True)])

    return spread


def firsts(values: Tensor, counts: Sequence[int]) -> Tensor:
    """The first row of each run of ``counts`` rows."""
    return torch.cat([run[:1] for run in values.split(list(counts))])


@torch.no_grad()
def shared_lead(velocity: Velocity, x_PLC: Tensor, sigmas: Tensor, window: Window) -> Tensor:
    """The ODE's steps before the window's first stochastic one, followed once for all samples of a group.

    x_PLC [P, L, C] at sigmas[0], the start that a group shares -> at sigmas[window.lead]; as it was where the first
    step is stochastic. Raises ValueError for other sigmas or shapes.
    """
    x_PLC, sigmas = _start(x_PLC, sigmas)
    for k in range(window.lead):
        here_P, next_P = sigmas[k].expand(len(x_PLC)), sigmas[k + 1].expand(len(x_PLC))
        x_PLC, _ = _transition(velocity, x_PLC, here_P, next_P, "ode")
    return x_PLC


@torch.no_grad()
def rollout(
    velocity: Velocity,
    x_NLC: Tensor,
    sigmas: Tensor,
    window: Window,
    noise: Noise,
    kind: Kind = "constant",
    noise_level: float = 0.4,
    first: int = 0,
    start: Velocity | None = None,
) -> Rollout:
    """Draw N samples and keep the transitions that will be trained. Eq. 13; Algorithm 1's sampling phase.

    x_NLC [N, L, C] at sigmas[first], 0 <= first <= window.lead; sigmas [K + 1] falling from at most 1 to 0; window for
    N samples and K steps; noise is called for stochastic steps only; kind and noise_level as in sde_transition(),
    kind not "ode"; start is the velocity of the first step, where another is cheaper (evaluated_once).
    All arithmetic but the velocity's own is float32, or float64 if x_NLC is.
    -> Rollout with its M pairs ordered by step, then sample. Raises ValueError for shapes or values out of range.
    """
    x_NLC, sigmas = _start(x_NLC, sigmas)
    _check_stochastic(kind)
    if window.trained_NK.shape != (len(x_NLC), len(sigmas) - 1):
        raise ValueError(
            f"window is for (N, K) = {tuple(window.trained_NK.shape)}, not {(len(x_NLC), len(sigmas) - 1)}"
        )
    if not 0 <= first <= window.lead:
        raise ValueError(f"first must be 0 .. {window.lead}, where the window begins, got {first}")
    sample_M, step_M, before_MLC, after_MLC, logp_M = [], [], [], [], []
    for k, stochastic in enumerate(window.stochastic_K.tolist()[first:], first):
        here_N, next_N = sigmas[k].expand(len(x_NLC)), sigmas[k + 1].expand(len(x_NLC))
        here = start if k == first and start is not None else velocity
        if not stochastic:
            x_NLC, _ = _transition(here, x_NLC, here_N, next_N, "ode", noise_level)
            continue
        mean_NLC, std_N11 = _transition(here, x_NLC, here_N, next_N, kind, noise_level)
        noise_NLC = noise(k).to(x_NLC)
        if noise_NLC.shape != x_NLC.shape:  # a broadcast would give the samples of a group the same draw
            raise ValueError(f"noise({k}) must be {list(x_NLC.shape)}, got {list(noise_NLC.shape)}")
        after_NLC = mean_NLC + std_N11 * noise_NLC
        rows = window.trained_NK[:, k].nonzero().squeeze(1).to(x_NLC.device)
        sample_M.append(rows)
        step_M.append(torch.full_like(rows, k))
        before_MLC.append(x_NLC[rows])
        after_MLC.append(after_NLC[rows])
        logp_M.append(gaussian_logp(after_NLC, mean_NLC, std_N11)[rows])
        x_NLC = after_NLC
    return Rollout(
        x_NLC=x_NLC,
        sample_M=torch.cat(sample_M),
        step_M=torch.cat(step_M),
        before_MLC=torch.cat(before_MLC),
        after_MLC=torch.cat(after_MLC),
        logp_M=torch.cat(logp_M),
    )


def replay_logp(
    velocity: Velocity,
    rollout: Rollout,
    index_B: Tensor,
    sigmas: Tensor,
    kind: Kind = "constant",
    noise_level: float = 0.4,
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probability, with gradient, of B of the M trained transitions under the policy as it is now.

    velocity is bound to the conditions of samples rollout.sample_M[index_B], in that order; index_B [B] long, in
    0 .. M-1, any order; sigmas, kind, noise_level as in the rollout. Every pair is evaluated at its own sigma.
    -> logp_B [B] to set against rollout.logp_M[index_B], and the transition's mean_BLC [B, L, C] and std_B11
    [B, 1, 1], for policy_kl(). Raises ValueError for shapes or values out of range.
    """
    before_BLC, sigmas = _start(rollout.before_MLC[index_B], sigmas)
    _check_stochastic(kind)
    step_B = rollout.step_M[index_B]
    mean_BLC, std_B11 = _transition(velocity, before_BLC, sigmas[step_B], sigmas[step_B + 1], kind, noise_level)
    return gaussian_logp(rollout.after_MLC[index_B], mean_BLC, std_B11), mean_BLC, std_B11


@torch.no_grad()
def integrate(velocity: Velocity, x_NLC: Tensor, sigmas: Tensor, order: Literal[1, 2] = 1) -> Tensor:
    """Follow the ODE from x_NLC [N, L, C] at sigmas[0] to sigma = 0: how the policy is evaluated.

    order 1: Euler steps. order 2: Adams-Bashforth, which goes on along the line through the last two velocities, at
    the same price (its first step is Euler's).
    sigmas [K + 1] falling from at most 1 to 0 -> x_NLC at sigma = 0. Raises ValueError for other sigmas or orders.
    """
    if order not in (1, 2):
        raise ValueError(f"order must be 1 or 2, got {order}")
    x_NLC, sigmas = _start(x_NLC, sigmas)
    before_NLC = None
    for k in range(len(sigmas) - 1):
        here_N, next_N = sigmas[k].expand(len(x_NLC)), sigmas[k + 1].expand(len(x_NLC))
        v_NLC = velocity(x_NLC, here_N).to(x_NLC.dtype)
        ahead_NLC = v_NLC
        if order == 2 and before_NLC is not None:
            half = (sigmas[k + 1] - sigmas[k]) / (sigmas[k] - sigmas[k - 1]) / 2  # of the way back to the last step
            ahead_NLC = v_NLC + half * (v_NLC - before_NLC)
        x_NLC, _ = sde_transition(x_NLC, ahead_NLC, here_N, next_N, "ode")
        before_NLC = v_NLC
    return x_NLC


def _transition(
    velocity: Velocity, x_NLC: Tensor, sigma_N: Tensor, next_N: Tensor, kind: Kind, noise_level: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The one place where a policy meets the flow: mean and std of the next x."""
    return sde_transition(x_NLC, velocity(x_NLC, sigma_N).to(x_NLC.dtype), sigma_N, next_N, kind, noise_level)


def _start(x_NLC: Tensor, sigmas: Tensor) -> tuple[Tensor, Tensor]:
    """x_NLC and sigmas in the precision of the arithmetic, checked."""
    if x_NLC.ndim != 3:
        raise ValueError(f"x_NLC must be [N, L, C], got {list(x_NLC.shape)}")
    if sigmas.ndim != 1 or len(sigmas) < 2 or sigmas[-1] != 0 or sigmas[0] > 1 or not (sigmas.diff() < 0).all():
        raise ValueError(f"sigmas must fall strictly from at most 1 to 0, got {sigmas.tolist()}")
    x_NLC = x_NLC.to(torch.promote_types(x_NLC.dtype, torch.float32))
    return x_NLC, sigmas.to(x_NLC)


def _check_stochastic(kind: Kind) -> None:
    if kind == "ode":
        raise ValueError('kind "ode" has no log-probability; steps outside the window follow the ODE already')
