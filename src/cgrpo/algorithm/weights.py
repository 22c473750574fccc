"""How much each reward counts at each denoising step (Eq. 12)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

# Eq. 12 for T = 25 steps, the paper's (Appendix A). For any other T, 25 * k is compared with T times these integers:
# the borders are exact, and no rounding of k/T has to be thought about.
PAPER_STEPS = 25
TRANSITION_FROM = 6
IDENTITY_FROM = 22
CENTRE = 10
STEEPNESS = 0.8  # per step of the paper's 25; with CENTRE known from the authors' code only


def sigmoid_weights(num_steps: int = 25, high: float = 0.7, low: float = 0.3, inverted: bool = False) -> Tensor:
    """Weight of the prompt reward over the steps: Timestep-Aware Dynamic Weighting. Eq. 12.

        high                                                      k/T <  6/25   the layout is decided: prompt
        low + (high - low) * (1 - sigmoid(0.8 * 25 * (k/T - 10/25)))   between
        low                                                       k/T >= 22/25  details are decided: identity

    k = 0 (noise) .. T-1 (image) is the true step. The identity reward gets the rest, 1 - w. On progress k/T the curve
    is the same for every T. inverted swaps the two rewards: w -> 1 - w (the paper's counter-test, Table 5).

    num_steps >= 1, 0 <= low <= high <= 1 -> w_prompt_K [K], float32. Raises ValueError outside these ranges.
    """
    _check_steps(num_steps)
    if not 0 <= low <= high <= 1:
        raise ValueError(f"weights must satisfy 0 <= low <= high <= 1, got low {low}, high {high}")

    def prompt_weight(k: int) -> float:
        progress = PAPER_STEPS * k  # in units of 1 / (25 T)
        if progress < TRANSITION_FROM * num_steps:
            return high
        if progress >= IDENTITY_FROM * num_steps:
            return low
        past_centre = (progress - CENTRE * num_steps) / num_steps
        return low + (high - low) / (1 + math.exp(STEEPNESS * past_centre))

    w_prompt_K = torch.tensor([prompt_weight(k) for k in range(num_steps)], dtype=torch.float32)
    return 1 - w_prompt_K if inverted else w_prompt_K


def constant_weights(num_steps: int, prompt: float = 0.5) -> Tensor:
    """The same weight of the prompt reward at every step; naive GRPO's 1:1 is 0.5, its 1:1.5 is 0.6.

    num_steps >= 1, 0 <= prompt <= 1 -> w_prompt_K [K], float32. Raises ValueError outside these ranges.
    """
    _check_steps(num_steps)
    if not 0 <= prompt <= 1:
        raise ValueError(f"the prompt's weight must be in [0, 1], got {prompt}")
    return torch.full((num_steps,), prompt, dtype=torch.float32)


def measured_weights(steps: Sequence[float]) -> Tensor:
    """A schedule that was measured, not drawn: the prompt reward's weight at each step, as given.

    steps: in [0, 1], one a step, at least one -> w_prompt_K [K], float32. Raises ValueError outside these ranges.
    """
    _check_steps(len(steps))
    if not all(0 <= weight <= 1 for weight in steps):
        raise ValueError(f"the prompt's weights must be in [0, 1], got {list(steps)}")
    return torch.tensor(steps, dtype=torch.float32)


def reward_weights(
    w_prompt_K: Tensor,
    names: Sequence[str],
    prompt: str = "prompt",
    identity: str | Sequence[str] = "identity",
    others: Mapping[str, float] | None = None,
) -> Tensor:
    """One column per reward, found by name: w to `prompt`, 1 - w to `identity`, a constant to each of `others`.

    Several `identity` rewards, those of single subjects, share 1 - w equally.

    w_prompt_K [K] in [0, 1]; others' weights >= 0, any reward that is named nowhere has 0: it is only watched.
    -> weights_KR [K, R] in the order of names; without others every row sums to 1.
    Raises ValueError for a name given twice, or a reward that carries weight but is not in names.
    """
    if w_prompt_K.ndim != 1 or not ((w_prompt_K >= 0) & (w_prompt_K <= 1)).all():
        raise ValueError(f"w_prompt_K must be [K] in [0, 1], got {w_prompt_K}")
    subjects = [identity] if isinstance(identity, str) else list(identity)
    if len(set(names)) != len(names) or prompt in subjects or len(set(subjects)) != len(subjects) or not subjects:
        raise ValueError(f"reward names must differ, got {list(names)} with prompt {prompt!r}, identity {identity!r}")
    if others and (
        not all(0 <= weight < math.inf for weight in others.values()) or {prompt, *subjects} & others.keys()
    ):
        raise ValueError(f"others must be weights >= 0 of rewards beside {prompt!r} and {identity!r}, got {others}")
    constant = {name: torch.full_like(w_prompt_K, weight) for name, weight in (others or {}).items()}
    column = {prompt: w_prompt_K} | {name: (1 - w_prompt_K) / len(subjects) for name in subjects} | constant
    for name, weight_K in column.items():
        if name not in names and weight_K.any():
            raise ValueError(f"reward {name!r} carries weight but is not among {list(names)}")
    return torch.stack([column.get(name, torch.zeros_like(w_prompt_K)) for name in names], dim=-1)


def _check_steps(num_steps: int) -> None:
    if num_steps < 1:
        raise ValueError(f"num_steps must be >= 1, got {num_steps}")
