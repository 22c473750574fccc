"""The credit functions of other papers: what SARS and TDW have to be compared with.

raw_sum, gdpo, apex, dyref     credit functions: how several rewards become one number
noise_weights, focal_weights   which steps, and which groups, count most

Each is the idea of a paper on this package's table, not that paper's whole method: docs/notes/departures.md says
what was left out.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cgrpo.algorithm.advantages import EPS, FLAT, group_advantages, scored_mask
from cgrpo.algorithm.credit import CreditSettings, combine, linear
from cgrpo.algorithm.flow import Kind, sde_transition


def raw_sum(scores_PGR: Tensor, weights_KR: Tensor, settings: CreditSettings) -> tuple[Tensor, Tensor]:
    """Scores are added first and normalised within the group afterwards: how most multi-reward runs do it.

        A[k] = (s - mean) / (std + 1e-8),    s = sum_r w[k, r] * score_r

    Flow-GRPO (arXiv 2505.05470) and its kin sum so. A reward's influence is then its weight times its spread in the
    group, so the scale of a score matters, which Eq. 8's order takes away. Flat groups get 0 as in
    ``group_advantages``. A ``CreditFunction``.
    """
    summed_PGK = torch.einsum("kr,pgr->pgk", weights_KR.to(torch.double), scores_PGR.double())
    credit_KPG = group_advantages(summed_PGK).permute(2, 0, 1).to(scores_PGR.dtype)
    return credit_KPG, torch.zeros_like(scores_PGR[..., 0])


def gdpo(scores_PGR: Tensor, weights_KR: Tensor, settings: CreditSettings) -> tuple[Tensor, Tensor]:
    """Each reward normalised within its group, their sum over the batch (``batch_normalised``). A ``CreditFunction``.

    GDPO, arXiv 2601.05242.
    """
    summed_KPG, bonus_PG = linear(scores_PGR, weights_KR, settings)
    return batch_normalised(summed_KPG, scored_mask(scores_PGR)), bonus_PG


def apex(scores_PGR: Tensor, weights_KR: Tensor, settings: CreditSettings) -> tuple[Tensor, Tensor]:
    """Advantages weighted by ``adaptive_priorities`` of each group, then summed. A ``CreditFunction``.

    After APEX, arXiv 2601.06574.
    """
    priority_PR = adaptive_priorities(scores_PGR, settings.conflict_penalty)
    adv_PGR = group_advantages(scores_PGR) * priority_PR[:, None]
    bonus_PG = torch.zeros_like(adv_PGR[..., 0])
    return combine(weights_KR, adv_PGR, bonus_PG), bonus_PG


def dyref(scores_PGR: Tensor, weights_KR: Tensor, settings: CreditSettings) -> tuple[Tensor, Tensor]:
    """GDPO on the subjects' mean similarity, each passed through a sigmoid first. A ``CreditFunction``.

        s' = mean over subjects of sigmoid(k * (s - 0.65)),    k = 10 + 3 * (subjects - 2)

    DyRef, arXiv 2606.26947: discriminative reward scaling, so that samples of a group differ most where subjects are
    half right, the more steeply the more references there are. Its difficulty-aware weights of groups are
    ``focal_weights``. The similarity is one reward with the weight of all subjects together.

    Raises ValueError where settings.subjects names no reward.
    """
    subjects = list(settings.subjects)
    if not subjects:
        raise ValueError("dyref needs settings.subjects, the indices of the identity rewards")
    others = [r for r in range(scores_PGR.shape[-1]) if r not in subjects]
    steepness = 10 + 3 * (len(subjects) - 2)
    scaled_PG1 = (steepness * (scores_PGR[..., subjects] - 0.65)).sigmoid().mean(dim=-1, keepdim=True)
    weights_KR = torch.cat([weights_KR[:, subjects].sum(dim=1, keepdim=True), weights_KR[:, others]], dim=1)
    return gdpo(torch.cat([scaled_PG1, scores_PGR[..., others]], dim=-1), weights_KR, settings)


def batch_normalised(credit_KPG: Tensor, scored_PG: Tensor) -> Tensor:
    """A weighted sum of group advantages, normalised once more over the whole batch, step by step.

        (x - mean) / (std + 1e-8), both over all scored samples of all groups, std unbiased

    The mean is 0 already but for unscored samples; what changes is the scale, and it changes from batch to batch.

    credit_KPG [K, P, G] finite, scored_PG bool [P, G] -> as credit_KPG; unscored samples 0, and all of a step where
    fewer than two are scored or they do not differ. Raises ValueError for shapes that disagree.
    """
    if credit_KPG.shape[1:] != scored_PG.shape:
        raise ValueError(f"credit_KPG {list(credit_KPG.shape)} and scored_PG {list(scored_PG.shape)} do not fit")
    values_KPG, count = credit_KPG.double() * scored_PG, int(scored_PG.sum())
    mean_K11 = values_KPG.sum(dim=(1, 2), keepdim=True) / max(count, 1)
    gap_KPG = (values_KPG - mean_K11) * scored_PG
    std_K11 = (gap_KPG.square().sum(dim=(1, 2), keepdim=True) / max(count - 1, 1)).sqrt()
    return (gap_KPG / (std_K11 + EPS) * (std_K11 >= FLAT)).to(credit_KPG.dtype)


def adaptive_priorities(rewards_PGR: Tensor, penalty: float = 0.5) -> Tensor:
    """How much each reward counts in each group: more where it can still be learnt, less where it is opposed.

        priority[p, r] = potential[r] * (1 - penalty * conflict[p, r]), divided by the mean over groups and rewards

        potential[r]    std within groups / std over the batch, at most 1: what part of the reward's spread a policy
                        can still decide for a given prompt
        conflict[p, r]  mean over the other rewards of max(0, -correlation within the group)

    After APEX (arXiv 2601.06574), whose priorities join learning potential, a conflict penalty and progress need on
    top of normalised rewards. The formulas are ours; progress need, which takes a memory of the run, is left out.
    With two rewards conflict is the same for both: it moves weight between groups, potential between rewards.

    rewards_PGR [P, G, R], NaN = could not be scored, a sample with any is left out; 0 <= penalty <= 1
    -> priority_PR [P, R] >= 0, mean 1, in the rewards' dtype (all 0 where no reward spreads within any group).
    Raises ValueError outside these ranges.
    """
    if not 0 <= penalty <= 1:
        raise ValueError(f"penalty must be in [0, 1], got {penalty}")
    scored_PG = ~rewards_PGR.isnan().any(dim=-1)
    values_PGR = rewards_PGR.double().masked_fill(~scored_PG[..., None], torch.nan)
    adv_PGR = group_advantages(values_PGR)
    freedom_P = (scored_PG.sum(dim=1) - 1).clamp(min=0)
    correlation_PRR = torch.einsum("pgr,pgs->prs", adv_PGR, adv_PGR) / freedom_P.clamp(min=1)[:, None, None]
    opposed_PRR = (-correlation_PRR).clamp(min=0)  # 0 of a reward with itself
    conflict_PR = opposed_PRR.sum(dim=-1) / max(rewards_PGR.shape[-1] - 1, 1)
    within_R = _variance(values_PGR - values_PGR.nanmean(dim=1, keepdim=True), int(freedom_P.sum()))
    total_R = _variance(values_PGR - values_PGR.nanmean(dim=(0, 1)), int(scored_PG.sum()) - 1)
    telling_R = (adv_PGR != 0).any(dim=1).any(dim=0)
    potential_R = (within_R / total_R).nan_to_num(nan=0.0).clamp(max=1).sqrt() * telling_R
    priority_PR = potential_R * (1 - penalty * conflict_PR)
    mean = priority_PR.mean()
    return (priority_PR / mean if mean > 0 else priority_PR).to(rewards_PGR.dtype)


def noise_weights(sigmas: Tensor, kind: Kind = "flow-grpo", noise_level: float = 0.7) -> Tensor:
    """A step counts as much as it draws noise, for all rewards alike.

        w[k] = std[k] / mean of std over all steps but the last,    std[k] of ``sde_transition``

    TempFlow-GRPO (arXiv 2508.04324), noise-aware weighting: a policy gradient falls with the noise of its step, and
    the weight gives that back. The mean leaves out the last transition, which no rollout makes stochastic.

    sigmas [K + 1] falling from 1 to 0, K >= 2 -> w_K [K] >= 0, float32. With Flow-GRPO's noise early steps count most,
    with constant noise the longest. Raises ValueError for other sigmas, for kind "ode", which draws no noise, and as
    ``sde_transition`` does.
    """
    if sigmas.ndim != 1 or len(sigmas) < 3:
        raise ValueError(f"sigmas must be [K + 1] with K >= 2, got {list(sigmas.shape)}")
    if kind == "ode":
        raise ValueError('kind "ode" draws no noise to weigh steps by')
    grid, nothing = sigmas.double(), torch.zeros(len(sigmas) - 1, 1, dtype=torch.float64, device=sigmas.device)
    _, std_K1 = sde_transition(nothing, nothing, grid[:-1], grid[1:], kind, noise_level)
    std_K = std_K1[:, 0]
    return (std_K / std_K[:-1].mean()).float()


def focal_weights(ease_PG: Tensor, gamma: float = 2.0) -> Tensor:
    """Whole groups count less the better they do already.

        w[p] = (1 - p)^gamma / mean over groups,    p = mean score of the group's samples, within 0 .. 1

    DyRef (arXiv 2606.26947), difficulty-aware weighting by the raw similarity to the references; the form is the
    focal loss's.

    ease_PG [P, G], a score whose 1 is perfect, NaN = could not be scored; gamma >= 0 -> w_P [P], mean 1 over the
    groups with any score, 1 for the others and where every group is perfect. Raises ValueError outside these ranges.
    """
    if ease_PG.ndim != 2 or not 0 <= gamma < math.inf:
        raise ValueError(f"need ease_PG [P, G] and gamma >= 0, got {list(ease_PG.shape)} and {gamma}")
    hard_P = (1 - ease_PG.double().nanmean(dim=1).clamp(0, 1)) ** gamma
    mean = hard_P.nanmean()
    return (hard_P / mean if mean > 0 else torch.ones_like(hard_P)).nan_to_num(nan=1.0).to(ease_PG.dtype)


def _variance(gap_PGR: Tensor, freedom: int) -> Tensor:
    """[R]: the mean square of what is no NaN, for ``freedom`` independent gaps."""
    return gap_PGR.square().nansum(dim=(0, 1)) / max(freedom, 1)
