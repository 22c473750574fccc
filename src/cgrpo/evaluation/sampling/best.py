"""Best of n: several pictures a task, of which the rewards choose one. No training, n times the pictures."""

from __future__ import annotations

import torch
from torch import Tensor

FLAT = 1e-6  # a spread below this is rounding


def best_of(scores_KNR: Tensor) -> Tensor:
    """Which of a task's K pictures has the greatest sum of its rewards, each in units of its spread within tasks.

        sum_r score[k, n, r] / std_r,    std_r^2 = mean over tasks of the variance over their pictures

    The spread is pooled over tasks: normalised task by task, two pictures whose two rewards disagree would always
    draw; added plainly, the reward with the larger scale would choose alone.

    scores_KNR [K, N, R], NaN = could not be scored: such a picture is not chosen unless all of the task's are, when it
    is the first -> index_N [N] long, 0 .. K - 1, the first of equals. Raises ValueError for another rank.
    """
    if scores_KNR.ndim != 3 or 0 in scores_KNR.shape:
        raise ValueError(f"scores_KNR must be [K, N, R], got {list(scores_KNR.shape)}")
    scores_KNR = scores_KNR.double()
    scored_KN = ~scores_KNR.isnan().any(dim=-1)
    known_KNR = scores_KNR.masked_fill(~scored_KN[..., None], torch.nan)
    gap_KNR = known_KNR - known_KNR.nanmean(dim=0)
    freedom = int((scored_KN.sum(dim=0) - 1).clamp(min=0).sum())
    std_R = (gap_KNR.square().nansum(dim=(0, 1)) / max(freedom, 1)).sqrt()
    telling_KNR = torch.where(std_R >= FLAT, gap_KNR / std_R, torch.zeros_like(gap_KNR))
    return telling_KNR.sum(dim=-1).masked_fill(~scored_KN, -torch.inf).argmax(dim=0)
