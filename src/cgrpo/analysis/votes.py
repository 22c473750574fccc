"""Credit functions by name, and how SARS votes on a group that holds two kinds of samples.

SARS' bonus is the product of two advantages. Where one kind of sample has more identity and less prompt following than
the other, the rarer kind lies further from the group's mean on both axes, so its product is the more negative one: the
bonus is against whichever kind is in the minority. In theory the vote is odd about one half.
"""

from __future__ import annotations

from functools import cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from cgrpo.algorithm import constant_weights, credit_table, reward_weights, sigmoid_weights
from cgrpo.analysis.inputs import PAIR

NOISE, GROUPS = 0.05, 4000  # of the theory's two modes


class CreditFunction(NamedTuple):
    """How a credit table is filled: the prompt's weight (None: TDW's schedule) and the shaping."""

    prompt: float | None
    shaping: Literal["none", "tanh", "max"] = "none"
    inverted: bool = False
    recentre: bool = False


CREDIT_FUNCTIONS = {
    "naive 1:1": CreditFunction(0.5),
    "naive 1:1.5": CreditFunction(0.6),
    "SARS": CreditFunction(0.5, "tanh"),
    "SARS, recentred": CreditFunction(0.5, "tanh", recentre=True),
    "TDW": CreditFunction(None),
    "SARS + TDW": CreditFunction(None, "tanh"),
    "inverted TDW": CreditFunction(None, inverted=True),
    "max": CreditFunction(0.5, "max"),
}


def fill(scores_PG2: Tensor, function: CreditFunction, steps: int) -> Tensor:
    """The credit table [K, P, G] by which ``function`` fills it; identity's and prompt's scores."""
    weights_K = (
        sigmoid_weights(steps, 0.7, 0.3, function.inverted)
        if function.prompt is None
        else constant_weights(steps, function.prompt)
    )
    weights_KR = reward_weights(weights_K, PAIR).to(scores_PG2)
    return credit_table(scores_PG2, weights_KR, function.shaping, recentre=function.recentre).credit_KPG


def bonus_drive(scores_PG2: Tensor, copy_PG: Tensor) -> Tensor:
    """100 times SARS' drive beyond the plain sum's [P]."""
    beyond_PG = fill(scores_PG2, CREDIT_FUNCTIONS["SARS"], 1)[0] - fill(scores_PG2, CREDIT_FUNCTIONS["naive 1:1"], 1)[0]
    return 100 * ((copy_PG - copy_PG.mean(1, keepdim=True)) * beyond_PG).mean(1)


@cache
def vote(copies: int, size: int) -> float:
    """100 times SARS' drive beyond the plain sum, in groups of ``size`` with so many copies, for two modes far apart.

    A copy has identity 1 and prompt -1, the others 0, with a little normal noise on both.
    """
    copy_1G = torch.zeros(1, size, dtype=torch.float64)
    copy_1G[0, :copies] = 1
    noise = torch.randn(GROUPS, size, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scores_PG2 = NOISE * noise + torch.stack([copy_1G, -copy_1G], -1)
    return bonus_drive(scores_PG2, copy_1G).mean().item()
