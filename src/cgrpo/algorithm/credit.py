"""The credit table: how strongly sample g of prompt p is reinforced at step k.

A credit function makes the table from scores and weights. Naive GRPO, SARS and Table 3's variants are here, those of
other papers in rivals.py. The trainer only reads the table.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations

import torch
from torch import Tensor

from cgrpo.algorithm.advantages import group_advantages, scored_mask, synergy


@dataclass(frozen=True)
class CreditSettings:
    """What credit functions can be told; each reads what it has a use for.

    alpha             strength of the synergy bonus, >= 0 (Eq. 11): ``sars``, ``harmonic``
    recentre          take the bonus's mean in each group away: ``sars``, ``harmonic``
    conflict_penalty  how much less an opposed reward counts, 0 .. 1: ``apex``
    focal             index of the reward whose gain at another's cost is punished, None for no such: ``one_sided``
    subjects          indices of the identity rewards, one for each subject: ``dyref``
    """

    alpha: float = 0.5
    recentre: bool = False
    conflict_penalty: float = 0.5
    focal: int | None = 0
    subjects: tuple[int, ...] = (0,)


CreditFunction = Callable[[Tensor, Tensor, CreditSettings], tuple[Tensor, Tensor]]
"""(scores_PGR, weights_KR, settings) -> credit_KPG, bonus_PG.

scores_PGR [P, G, R] with NaN = could not be scored; weights_KR [K, R] >= 0, no reward without any weight. credit_KPG
[K, P, G] is finite, except that a sample with a NaN may have any credit. bonus_PG [P, G] is the part of the credit that
was added to the weighted sum, 0 where nothing was.
"""


@dataclass(frozen=True)
class Credit:
    """The table and what it was made of.

    credit_KPG  [K, P, G]  the table
    bonus_PG    [P, G]     what was added to the weighted sum, 0 where nothing was; the whole credit of min and max
    scored_PG   [P, G]     bool; a sample without it lacks a weighted reward and has credit 0
    """

    credit_KPG: Tensor
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

        step_K [K], group_P [P], >= 0; None leaves the table as it is. Raises ValueError for other weights.
        """
        table_KPG = self.credit_KPG
        for weights, length in ((step_K, table_KPG.shape[0]), (group_P, table_KPG.shape[1])):
            if weights is not None and not (
                weights.shape == (length,) and (weights >= 0).all() and weights.isfinite().all()
            ):
                raise ValueError(f"weights must be [{length}], finite and >= 0, got {weights}")
        if step_K is not None:
            table_KPG = table_KPG * step_K.to(table_KPG)[:, None, None]
        if group_P is not None:
            table_KPG = table_KPG * group_P.to(table_KPG)[:, None]
        return replace(self, credit_KPG=table_KPG)


def linear(scores_PGR: Tensor, weights_KR: Tensor, settings: CreditSettings) -> tuple[Tensor, Tensor]:
    """Naive GRPO: the weighted sum of the advantages. Eq. 8, 12. A ``CreditFunction``."""
    adv_PGR = group_advantages(scores_PGR)
    bonus_PG = torch.zeros_like(adv_PGR[..., 0])
    return combine(weights_KR, adv_PGR, bonus_PG), bonus_PG


def sars(scores_PGR: Tensor, weights_KR: Tensor, settings: CreditSettings) -> tuple[Tensor, Tensor]:
    """Synergy-Aware Reward Shaping: the sum and a bonus where rewards agree. Eq. 8, 10-12. A ``CreditFunction``."""
    adv_PGR = group_advantages(scores_PGR)
    bonus_PG = synergy(adv_PGR, settings.alpha, "tanh", settings.recentre, scored_mask(scores_PGR))
    return combine(weights_KR, adv_PGR, bonus_PG), bonus_PG


def harmonic(scores_PGR: Tensor, weights_KR: Tensor, settings: CreditSettings) -> tuple[Tensor, Tensor]:
    """SARS with the harmonic mean in place of tanh. Table 3. A ``CreditFunction``."""
    adv_PGR = group_advantages(scores_PGR)
    bonus_PG = synergy(adv_PGR, settings.alpha, "harmonic", settings.recentre, scored_mask(scores_PGR))
    return combine(weights_KR, adv_PGR, bonus_PG), bonus_PG


def one_sided(scores_PGR: Tensor, weights_KR: Tensor, settings: CreditSettings) -> tuple[Tensor, Tensor]:
    """The one quadrant of SARS that punishes a gain of the focal reward at another's cost. A ``CreditFunction``.

        bonus = alpha * mean over the others of tanh(max(A_focal, 0) * min(A_other, 0))

    With identity as the focal reward it is against copies of the reference, however many of the group are copies; SARS
    is for them once they are the majority. Beyond the paper.
    """
    adv_PGR = group_advantages(scores_PGR)
    bonus_PG = torch.zeros_like(adv_PGR[..., 0])
    if settings.focal is not None:
        lost_PGR = (adv_PGR[..., settings.focal, None].clamp(min=0) * adv_PGR.clamp(max=0)).tanh()
        bonus_PG = settings.alpha * lost_PGR.sum(dim=-1) / max(adv_PGR.shape[-1] - 1, 1)  # the focal reward's own is 0
    return combine(weights_KR, adv_PGR, bonus_PG), bonus_PG


def minimum(scores_PGR: Tensor, weights_KR: Tensor, settings: CreditSettings) -> tuple[Tensor, Tensor]:
    """A sample's worst advantage in place of the sum: no weights, no alpha. Table 3. A ``CreditFunction``."""
    worst_PG = group_advantages(scores_PGR).amin(dim=-1)
    return worst_PG.expand(len(weights_KR), -1, -1), worst_PG


def maximum(scores_PGR: Tensor, weights_KR: Tensor, settings: CreditSettings) -> tuple[Tensor, Tensor]:
    """A sample's best advantage in place of the sum: no weights, no alpha. Table 3. A ``CreditFunction``."""
    best_PG = group_advantages(scores_PGR).amax(dim=-1)
    return best_PG.expand(len(weights_KR), -1, -1), best_PG


def credit_table(
    scores_PGR: Tensor,
    weights_KR: Tensor,
    function: CreditFunction = sars,
    settings: CreditSettings = CreditSettings(),
    clamp: float = 5.0,
) -> Credit:
    """From raw scores to the credit table, by any credit function.

    scores_PGR [P, G, R], NaN = could not be scored; weights_KR [K, R] >= 0; clamp > 0, the largest credit.
    Only rewards with some non-zero weight take part: a reward that is merely watched neither makes a bonus nor, by
    being NaN, silences a sample. A sample that lacks a weighted reward has credit and bonus 0.
    Raises ValueError outside these ranges, for shapes that disagree, when no reward has weight, or for a credit
    function that does not keep to its contract.
    """
    if weights_KR.ndim != 2 or scores_PGR.ndim != 3 or weights_KR.shape[1] != scores_PGR.shape[2]:
        raise ValueError(f"weights_KR {list(weights_KR.shape)} and scores_PGR {list(scores_PGR.shape)} do not fit")
    if not (weights_KR.isfinite() & (weights_KR >= 0)).all():
        raise ValueError("weights_KR must be finite and >= 0")
    if not clamp > 0:
        raise ValueError(f"clamp must be > 0, got {clamp}")
    weighted_R = (weights_KR != 0).any(dim=0)
    if not weighted_R.any():
        raise ValueError("no reward has a non-zero weight")
    scores_PGR = scores_PGR[..., weighted_R.to(scores_PGR.device)]
    scored_PG = scored_mask(scores_PGR)
    credit_KPG, bonus_PG = function(scores_PGR, weights_KR[:, weighted_R], settings)
    if credit_KPG.shape != (len(weights_KR), *scored_PG.shape) or bonus_PG.shape != scored_PG.shape:
        shapes = f"{list(credit_KPG.shape)} and {list(bonus_PG.shape)}"
        raise ValueError(f"a credit function must return credit_KPG [K, P, G] and bonus_PG [P, G], got {shapes}")
    credit_KPG, bonus_PG = (torch.where(scored_PG, t, torch.zeros_like(t)) for t in (credit_KPG, bonus_PG))
    if not (credit_KPG.isfinite().all() and bonus_PG.isfinite().all()):
        raise ValueError("a credit function gave a scored sample a credit that is not finite")
    return Credit(credit_KPG.clamp(-clamp, clamp), bonus_PG, scored_PG)


def combine(weights_KR: Tensor, adv_PGR: Tensor, bonus_PG: Tensor) -> Tensor:
    """credit[k, p, g] = sum_r w[k, r] * A[p, g, r] + bonus[p, g]. Eq. 11-12.

    weights_KR [K, R], adv_PGR [P, G, R], bonus_PG [P, G] -> credit_KPG [K, P, G] in adv_PGR's dtype.
    Raises ValueError for shapes that disagree.
    """
    if weights_KR.ndim != 2 or adv_PGR.ndim != 3 or weights_KR.shape[1] != adv_PGR.shape[2]:
        raise ValueError(f"weights_KR {list(weights_KR.shape)} and adv_PGR {list(adv_PGR.shape)} do not fit")
    if bonus_PG.shape != adv_PGR.shape[:2]:
        raise ValueError(f"bonus_PG {list(bonus_PG.shape)} does not fit adv_PGR {list(adv_PGR.shape)}")
    return torch.einsum("kr,pgr->kpg", weights_KR.to(adv_PGR), adv_PGR) + bonus_PG


def diagnostics(scores_PGR: Tensor, credit: Credit) -> dict[str, float]:
    """Numbers that tell whether the rewards pull apart (Figure 7) and what shaping does about it.

    scores_PGR [P, G, R] as given to credit_table() -> a dict of

    conflict_share      samples with one reward's advantage above 0 and another's below, over all pairs of rewards;
                        two independent rewards give 0.50, so the deviation from that is what tells
    reward_correlation  mean over groups and pairs of rewards of Pearson's correlation within the group
    bonus_shift         mean over groups of the group's mean bonus: by how much shaping moves the mean credit off 0
    unscored_share      samples with credit 0 because a weighted reward is NaN

    The first two also look at rewards that are only watched. A number that is undefined (a single reward, no group
    with any spread, no scored sample) is NaN. Raises ValueError when the shapes disagree.
    """
    if scores_PGR.shape[:2] != credit.scored_PG.shape:
        raise ValueError(f"scores_PGR {list(scores_PGR.shape)} does not fit credit of {list(credit.scored_PG.shape)}")
    adv_PGR = group_advantages(scores_PGR)
    conflicts, correlations = [], []
    for pair in combinations(range(scores_PGR.shape[-1]), 2):
        both_PG = scored_mask(scores_PGR[..., pair])
        conflicts.append((adv_PGR[..., pair].prod(dim=-1) < 0)[both_PG])
        # Standardised again, over the samples that have both rewards: the mean product is then the correlation.
        adv_PG2 = group_advantages(scores_PGR[..., pair].masked_fill(~both_PG[..., None], math.nan))
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
