"""The credit table: how strongly sample g of prompt p is reinforced at step k.

Naive GRPO, SARS, TDW, their combinations and their rivals (rivals.py) differ only in how this table is filled; whoever
trains only reads it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor

from cgrpo.algorithm.advantages import group_advantages, scored_mask, synergy
from cgrpo.algorithm.rivals import adaptive_priorities, batch_normalised, raw_sum

Shaping = Literal["none", "tanh", "harmonic", "min", "max", "raw-sum", "gdpo", "apex"]


@dataclass(frozen=True)
class Credit:
    """The filled table and what it was made of.

    credit_KPG  [K, P, G]  the table
    adv_PGR     [P, G, R]  advantage of every reward, weighted or not
    bonus_PG    [P, G]     what was added to the weighted sum, 0 where nothing is; with min and max, which replace it,
                           the whole credit
    scored_PG   [P, G]     bool; a sample without it lacks a weighted reward and has credit 0
    """

    credit_KPG: Tensor
    adv_PGR: Tensor
    bonus_PG: Tensor
    scored_PG: Tensor

    def of_pairs(self, sample_M: Tensor, step_M: Tensor) -> Tensor:
        """Credit of M (sample, true step) pairs, samples numbered n = p * G + g -> [M]."""
        return self.credit_KPG.flatten(1)[step_M, sample_M]

    def below_zero(self, share: float) -> Credit:
        """The table with credit below 0 times ``share``."""
        table_KPG = self.credit_KPG
        return replace(self, credit_KPG=torch.where(table_KPG < 0, share * table_KPG, table_KPG))

    def emphasised(self, step_K: Tensor | None = None, group_P: Tensor | None = None) -> Credit:
        """The table times a weight for each step, and for each group; after the clamp, so as a weight of the loss.

        step_K [K], group_P [P], >= 0; None leaves the table as it is.
        """
        table_KPG = self.credit_KPG
        if step_K is not None:
            table_KPG = table_KPG * step_K.to(table_KPG)[:, None, None]
        if group_P is not None:
            table_KPG = table_KPG * group_P.to(table_KPG)[:, None]
        return replace(self, credit_KPG=table_KPG)


def credit_table(
    rewards_PGR: Tensor,
    weights_KR: Tensor,
    shaping: Shaping = "tanh",
    alpha: float = 0.5,
    recentre: bool = False,
    clamp: float = 5.0,
    penalty: float = 0.5,
) -> Credit:
    """From raw rewards to the credit table. Eq. 8, 10-12.

    rewards_PGR [P, G, R], NaN = could not be scored; weights_KR [K, R] >= 0; alpha >= 0; clamp > 0.
    shaping: none (linear), tanh (the paper's SARS) and harmonic are added; min and max replace the weighted sum at
    every step (Table 3), and neither alpha nor the weights' sizes matter; "raw-sum", "gdpo" and "apex" are the field's
    own (rivals.py), weighted but without a bonus. penalty, in 0 .. 1, is of "apex" alone.
    Only rewards with some non-zero weight take part: a reward that is merely watched neither makes a bonus nor, by
    being NaN, silences a sample. With a single such reward there is no bonus.
    recentre: see synergy(); for those that have a bonus.
    Raises ValueError outside these ranges, for shapes that disagree, or when no reward has weight.
    """
    adv_PGR = group_advantages(rewards_PGR)
    if weights_KR.ndim != 2 or weights_KR.shape[1] != rewards_PGR.shape[2]:
        raise ValueError(f"weights_KR {list(weights_KR.shape)} does not fit R = {rewards_PGR.shape[2]} rewards")
    weighted_R = (weights_KR != 0).any(dim=0).to(rewards_PGR.device)
    if not weighted_R.any():
        raise ValueError("no reward has a non-zero weight")
    scored_PG = scored_mask(rewards_PGR[..., weighted_R])
    weighted_PGR = adv_PGR[..., weighted_R] * scored_PG[..., None]  # here R counts only the weighted ones
    weights_KR = weights_KR[:, weighted_R.to(weights_KR.device)]
    if recentre and shaping not in ("none", "tanh", "harmonic"):
        raise ValueError(f"recentre needs a bonus that is added; shaping {shaping!r} has none")
    if not clamp > 0:
        raise ValueError(f"clamp must be > 0, got {clamp}")
    bonus_PG = torch.zeros_like(weighted_PGR[..., 0])
    match shaping:
        case "min" | "max":
            bonus_PG, weights_KR = replace_advantages(weighted_PGR, shaping), torch.zeros_like(weights_KR)
        case "raw-sum":
            table_KPG = raw_sum(rewards_PGR[..., weighted_R], weights_KR).clamp(-clamp, clamp)
            return Credit(table_KPG, adv_PGR, bonus_PG, scored_PG)
        case "gdpo":
            summed_KPG = combine(weights_KR, weighted_PGR, bonus_PG, math.inf)
            return Credit(batch_normalised(summed_KPG, scored_PG).clamp(-clamp, clamp), adv_PGR, bonus_PG, scored_PG)
        case "apex":
            weighted_PGR = weighted_PGR * adaptive_priorities(rewards_PGR[..., weighted_R], penalty)[:, None]
        case _:
            bonus_PG = synergy(weighted_PGR, alpha, shaping, recentre, scored_PG)
    return Credit(combine(weights_KR, weighted_PGR, bonus_PG, clamp), adv_PGR, bonus_PG, scored_PG)


def combine(weights_KR: Tensor, adv_PGR: Tensor, bonus_PG: Tensor, clamp: float = 5.0) -> Tensor:
    """credit[k, p, g] = sum_r w[k, r] * A[p, g, r] + bonus[p, g], clamped to +-clamp. Eq. 11-12.

    weights_KR [K, R] >= 0, adv_PGR [P, G, R], bonus_PG [P, G], all finite; clamp > 0 -> credit_KPG [K, P, G] in
    adv_PGR's dtype. Raises ValueError outside these ranges or for shapes that disagree.
    """
    if weights_KR.ndim != 2 or adv_PGR.ndim != 3 or weights_KR.shape[1] != adv_PGR.shape[2]:
        raise ValueError(f"weights_KR {list(weights_KR.shape)} and adv_PGR {list(adv_PGR.shape)} do not fit")
    if bonus_PG.shape != adv_PGR.shape[:2]:
        raise ValueError(f"bonus_PG {list(bonus_PG.shape)} does not fit adv_PGR {list(adv_PGR.shape)}")
    if not clamp > 0:
        raise ValueError(f"clamp must be > 0, got {clamp}")
    if not (weights_KR.isfinite() & (weights_KR >= 0)).all():
        raise ValueError("weights_KR must be finite and >= 0")
    if not (adv_PGR.isfinite().all() and bonus_PG.isfinite().all()):
        raise ValueError("adv_PGR and bonus_PG must be finite")
    weighted_KPG = torch.einsum("kr,pgr->kpg", weights_KR.to(adv_PGR), adv_PGR)
    return (weighted_KPG + bonus_PG).clamp(-clamp, clamp)


def replace_advantages(adv_PGR: Tensor, function: Literal["min", "max"]) -> Tensor:
    """The worst (best) of a sample's advantages in place of their sum: no weights, no alpha, no flip. Table 3.

    adv_PGR [P, G, R] -> credit_PG [P, G]. Raises ValueError for another rank or function.
    """
    if adv_PGR.ndim != 3:
        raise ValueError(f"adv_PGR must be [P, G, R], got {list(adv_PGR.shape)}")
    if function == "min":
        return adv_PGR.amin(dim=-1)
    if function == "max":
        return adv_PGR.amax(dim=-1)
    raise ValueError(f"unknown replacing function {function!r}; known: min, max")


def diagnostics(rewards_PGR: Tensor, credit: Credit) -> dict[str, float]:
    """Numbers that tell whether the rewards pull apart (Figure 7) and what shaping does about it.

    rewards_PGR [P, G, R] as given to credit_table() -> a dict of

    conflict_share      samples with one reward's advantage above 0 and another's below, over all pairs of rewards;
                        two independent rewards give 0.50, so the deviation from that is what tells
    reward_correlation  mean over groups and pairs of rewards of Pearson's correlation within the group
    bonus_shift         mean over groups of the group's mean bonus: by how much shaping moves the mean credit off 0
    unscored_share      samples with credit 0 because a weighted reward is NaN

    The first two also look at rewards that are only watched. A number that is undefined (a single reward, no group
    with any spread, no scored sample) is NaN. Raises ValueError when the shapes disagree.
    """
    if rewards_PGR.shape != credit.adv_PGR.shape:
        raise ValueError(f"rewards_PGR {list(rewards_PGR.shape)} is not what filled {list(credit.adv_PGR.shape)}")
    conflicts, correlations = [], []
    for pair in combinations(range(rewards_PGR.shape[-1]), 2):
        both_PG = scored_mask(rewards_PGR[..., pair])
        conflicts.append((credit.adv_PGR[..., pair].prod(dim=-1) < 0)[both_PG])
        # Standardised again, over the samples that have both rewards: the mean product is then the correlation.
        adv_PG2 = group_advantages(rewards_PGR[..., pair].masked_fill(~both_PG[..., None], math.nan))
        correlation_P = adv_PG2.prod(dim=-1).sum(dim=1) / (both_PG.sum(dim=1) - 1)
        correlations.append(correlation_P[(adv_PG2 != 0).any(dim=1).all(dim=-1)])
    count_P = credit.scored_PG.sum(dim=1)
    return {
        "conflict_share": _mean(conflicts),
        "reward_correlation": _mean(correlations),
        "bonus_shift": _mean([(credit.bonus_PG.sum(dim=1) / count_P)[count_P > 0]]),
        "unscored_share": _mean([~credit.scored_PG.flatten()]),
    }


def _mean(parts: list[Tensor]) -> float:
    return torch.cat(parts).double().mean().item() if parts else math.nan
