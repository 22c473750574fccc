"""Preferences in place of credit: RPO, the paper's offline baseline (Table 2).

Of the pictures that the frozen base makes for a task, the harmonic mean of the rewards says which wins and which loses;
the policy then learns to point more to winners than to losers, and to the reference itself (RPO, Miao et al. 2024).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus


def harmonic_mean(identity: Tensor, prompt: Tensor, weight: float = 0.5) -> Tensor:
    """1 / (weight / prompt + (1 - weight) / identity): near the worse of both. RPO's reward.

    identity, prompt: scores of one shape; weight of the prompt in [0, 1] -> that shape; 0, the worst, where a score
    that counts is not above 0, NaN where one is NaN. Raises ValueError for other shapes or weights.
    """
    if identity.shape != prompt.shape or not 0 <= weight <= 1:
        shapes = f"{list(identity.shape)} and {list(prompt.shape)}, weight {weight}"
        raise ValueError(f"need scores of one shape and a weight in [0, 1], got {shapes}")
    counted = [(score, share) for score, share in ((prompt, weight), (identity, 1 - weight)) if share]
    parts = [share / score.clamp(min=torch.finfo(score.dtype).tiny) for score, share in counted]  # NaN stays
    mean = 1 / torch.stack(parts).sum(dim=0)
    bad = torch.stack([score <= 0 for score, _ in counted]).any(dim=0)
    return torch.where(bad & ~mean.isnan(), torch.zeros_like(mean), mean)


def winner_and_loser(score_PG: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A task's best and worst picture, and whether they are a pair at all.

    score_PG [P, G], NaN = could not be scored -> winner_P, loser_P [P] long, the first of equals, and pair_P bool [P]:
    false where fewer than two are scored or all scores are equal. Raises ValueError for another rank.
    """
    if score_PG.ndim != 2 or 0 in score_PG.shape:
        raise ValueError(f"score_PG must be [P, G], got {list(score_PG.shape)}")
    unscored_PG = score_PG.isnan()
    best_P, winner_P = score_PG.masked_fill(unscored_PG, -torch.inf).max(dim=1)
    worst_P, loser_P = score_PG.masked_fill(unscored_PG, torch.inf).min(dim=1)
    return winner_P, loser_P, best_P > worst_P


def preference_loss(
    won: Tensor, won_reference: Tensor, lost: Tensor, lost_reference: Tensor, beta: float = 500.0
) -> Tensor:
    """Flow-DPO's loss, per pair (arXiv 2501.13918, with beta the same at every noise level).

        -log sigmoid(-beta / 2 * ((won - won_reference) - (lost - lost_reference)))

    on the errors (``flow_matching_loss``) of the policy and of the frozen reference, at winner and loser under one
    noise and level. ln 2 while the policy is the reference. It falls where the loser's error rises, too: nothing but
    beta holds the policy to its data.

    won, lost (with gradient), won_reference, lost_reference [N]; beta > 0, on the scale of errors averaged over the
    latent's axes -> [N]. Raises ValueError outside these ranges.
    """
    if not won.shape == won_reference.shape == lost.shape == lost_reference.shape:
        shapes = f"{list(won.shape)}, {list(won_reference.shape)}, {list(lost.shape)}, {list(lost_reference.shape)}"
        raise ValueError(f"the four errors must have one shape, got {shapes}")
    if not 0 < beta < math.inf:
        raise ValueError(f"beta must be > 0 and finite, got {beta}")
    return softplus(beta / 2 * ((won - won_reference.detach()) - (lost - lost_reference.detach())))
