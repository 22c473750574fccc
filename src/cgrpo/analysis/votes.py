"""Credit functions by name, and how SARS votes on a group that holds two kinds of samples.

SARS' bonus is the product of two advantages. Where one kind of sample has more identity and less prompt following than
the other, the rarer kind lies further from the group's mean on both axes, so its product is the more negative one: the
bonus is against whichever kind is in the minority. In theory the vote is odd about one half.
"""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from cgrpo.algorithm import (
    CreditFunction,
    CreditSettings,
    constant_weights,
    credit_table,
    linear,
    maximum,
    one_sided,
    reward_weights,
    sars,
    sigmoid_weights,
)
from cgrpo.analysis.inputs import PAIR

NOISE, GROUPS = 0.05, 4000  # of the theory's two modes


class CreditRecipe(NamedTuple):
    """What makes a credit table: the prompt's weight (None: TDW's schedule), and a credit function."""

    prompt: float | None
    function: CreditFunction = linear
    inverted: bool = False
    recentre: bool = False


CREDIT_FUNCTIONS = {
    "naive 1:1": CreditRecipe(0.5),
    "naive 1:1.5": CreditRecipe(0.6),
    "SARS": CreditRecipe(0.5, sars),
    "SARS, recentred": CreditRecipe(0.5, sars, recentre=True),
    "one-sided SARS": CreditRecipe(0.5, one_sided),
    "TDW": CreditRecipe(None),
    "SARS + TDW": CreditRecipe(None, sars),
    "inverted TDW": CreditRecipe(None, inverted=True),
    "max": CreditRecipe(0.5, maximum),
}


def credit_by(scores_PG2: Tensor, recipe: CreditRecipe, steps: int) -> Tensor:
    """The credit table [K, P, G] of identity's and prompt's scores."""
    weights_K = (
        sigmoid_weights(steps, 0.7, 0.3, recipe.inverted)
        if recipe.prompt is None
        else constant_weights(steps, recipe.prompt)
    )
    weights_KR = reward_weights(weights_K, PAIR).to(scores_PG2)
    settings = CreditSettings(recentre=recipe.recentre)
    return credit_table(scores_PG2, weights_KR, recipe.function, settings).credit_KPG


def bonus_drive(scores_PG2: Tensor, copy_PG: Tensor, name: str = "SARS") -> Tensor:
    """100 times the drive of SARS, or of one-sided SARS, beyond the plain sum's [P]."""
    beyond_PG = (
        credit_by(scores_PG2, CREDIT_FUNCTIONS[name], 1)[0] - credit_by(scores_PG2, CREDIT_FUNCTIONS["naive 1:1"], 1)[0]
    )
    return 100 * ((copy_PG - copy_PG.mean(1, keepdim=True)) * beyond_PG).mean(1)


@cache
def vote(copies: int, size: int, name: str = "SARS") -> float:
    """``bonus_drive`` in theory: in groups of ``size`` with so many copies, for two modes far apart.

    A copy has identity 1 and prompt -1, the others 0, with a little normal noise on both.
    """
    copy_1G = torch.zeros(1, size, dtype=torch.float64)
    copy_1G[0, :copies] = 1
    noise = torch.randn(GROUPS, size, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scores_PG2 = NOISE * noise + torch.stack([copy_1G, -copy_1G], -1)
    return bonus_drive(scores_PG2, copy_1G, name).mean().item()
