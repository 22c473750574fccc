"""Group advantages (Eq. 8) and the synergy term between rewards (Eq. 10-11)."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

Synergy = Literal["tanh", "harmonic"]

EPS = 1e-8
FLAT = 1e-6  # a spread below this share of the mean is rounding, not a difference between samples


def scored_mask(rewards_PGR: Tensor) -> Tensor:
    """Which samples have a number for every reward.

    rewards_PGR [P, G, R], NaN = could not be scored -> scored_PG bool [P, G].
    """
    _check_PGR(rewards_PGR, "rewards_PGR")
    return ~rewards_PGR.isnan().any(dim=-1)


def group_advantages(rewards_PGR: Tensor) -> Tensor:
    """How much better each sample is than its group, per reward and in units of the group's spread. Eq. 8.

        A = (r - mean) / (std + 1e-8), std unbiased

    rewards_PGR [P, G, R], any finite number; NaN = could not be scored -> adv_PGR, same shape and dtype.
    A NaN is left out of the mean and std of its group and gets advantage 0 for that reward. A group with fewer than
    two scored samples, or with std < 1e-6 * max(1, |mean|), gets 0: rounding noise must not be blown up to advantages.
    Raises ValueError for another rank, an integer dtype, or an infinite reward.
    """
    _check_PGR(rewards_PGR, "rewards_PGR")
    if rewards_PGR.isinf().any():
        raise ValueError("rewards_PGR holds an infinite reward; a reward that could not be computed is NaN")
    scored_PGR = ~rewards_PGR.isnan()
    count_P1R = scored_PGR.sum(dim=1, keepdim=True)
    values_PGR = rewards_PGR.double().nan_to_num(nan=0.0)
    mean_P1R = values_PGR.sum(dim=1, keepdim=True) / count_P1R.clamp(min=1)
    deviation_PGR = (values_PGR - mean_P1R) * scored_PGR
    std_P1R = (deviation_PGR.square().sum(dim=1, keepdim=True) / (count_P1R - 1).clamp(min=1)).sqrt()
    telling_P1R = std_P1R >= FLAT * mean_P1R.abs().clamp(min=1)  # never with fewer than two scored: their std is 0
    return (deviation_PGR / (std_P1R + EPS) * telling_P1R).to(rewards_PGR.dtype)


def synergy(
    adv_PGR: Tensor,
    alpha: float = 0.5,
    function: Synergy = "tanh",
    recentre: bool = False,
    scored_PG: Tensor | None = None,
) -> Tensor:
    """What a sample gains or loses because its rewards agree or disagree. Eq. 10-11.

        bonus = +alpha * S(a, b)   if a > 0 or b > 0     both good: a gain; one good, one bad: a loss
                -alpha * S(a, b)   otherwise             both bad: a further loss

    S = tanh(a * b), or harmonic: a * b / (|a| + |b| + 1e-8). With more than two rewards (beyond the paper) the bonus
    is the mean over all pairs, with fewer it is 0.

    adv_PGR [P, G, R], finite; alpha >= 0 -> bonus_PG [P, G].
    recentre takes the group's mean bonus away, so that the bonus only reorders a group; the mean is over the samples
    in scored_PG bool [P, G] (default: all), and the others get 0.
    Raises ValueError outside these ranges or for an unknown function.
    """
    _check_PGR(adv_PGR, "adv_PGR")
    if not adv_PGR.isfinite().all():
        raise ValueError("adv_PGR must be finite; group_advantages() turns unscored rewards into 0")
    if not 0 <= alpha < math.inf:
        raise ValueError(f"alpha must be finite and >= 0, got {alpha}")
    if scored_PG is None:
        scored_PG = torch.ones_like(adv_PGR[..., 0], dtype=torch.bool)
    if scored_PG.shape != adv_PGR.shape[:2] or scored_PG.dtype != torch.bool:
        raise ValueError(f"scored_PG must be bool {list(adv_PGR.shape[:2])}, got {list(scored_PG.shape)}")
    pairs = torch.combinations(torch.arange(adv_PGR.shape[-1], device=adv_PGR.device))  # one row per pair of rewards
    if function not in get_args(Synergy):
        raise ValueError(f"unknown synergy function {function!r}; known: {', '.join(get_args(Synergy))}")
    if len(pairs) == 0:
        return torch.zeros_like(adv_PGR[..., 0])
    a_PGQ, b_PGQ = adv_PGR[..., pairs[:, 0]], adv_PGR[..., pairs[:, 1]]  # Q: pairs of rewards
    product_PGQ = a_PGQ * b_PGQ
    agreement_PGQ = product_PGQ.tanh() if function == "tanh" else product_PGQ / (a_PGQ.abs() + b_PGQ.abs() + EPS)
    any_good_PGQ = (a_PGQ > 0) | (b_PGQ > 0)
    bonus_PG = alpha * torch.where(any_good_PGQ, agreement_PGQ, -agreement_PGQ).mean(dim=-1) * scored_PG
    if not recentre:
        return bonus_PG
    mean_P1 = bonus_PG.sum(dim=1, keepdim=True) / scored_PG.sum(dim=1, keepdim=True).clamp(min=1)
    return (bonus_PG - mean_P1) * scored_PG


def _check_PGR(values_PGR: Tensor, name: str) -> None:
    if values_PGR.ndim != 3 or not values_PGR.is_floating_point() or 0 in values_PGR.shape:
        raise ValueError(f"{name} must be floating point [P, G, R], got {values_PGR.dtype} {list(values_PGR.shape)}")
