"""From the tables ``shaping`` and ``weights`` to the credit table, for every method that has one."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from cgrpo.algorithm import (
    Credit,
    CreditFunction,
    CreditSettings,
    Kind,
    constant_weights,
    credit_table,
    focal_weights,
    measured_weights,
    noise_weights,
    reward_weights,
    sigmoid_weights,
)
from cgrpo.config import CREDITS, GroupConfig, Weights


class CreditTable:
    """Makes the credit table from an iteration's scores, as the tables ``shaping`` and ``weights`` say.

    names: of the rewards, in the order of the scores; sigmas: the table's steps [K + 1]; kind, noise_level: of the
    noise that a step draws, for weights by noise.
    """

    def __init__(self, cfg: GroupConfig, names: Sequence[str], sigmas: Tensor, kind: Kind, noise_level: float):
        self.shaping, self.clamp = cfg.shaping, cfg.training.clamp
        self.function: CreditFunction = CREDITS.load(cfg.shaping.type)
        self.settings = CreditSettings(cfg.shaping.alpha, cfg.shaping.recentre, cfg.shaping.conflict_penalty)
        prompt_K = prompt_weights(cfg.weights, cfg.sampling.steps)
        self.weights_KR = reward_weights(prompt_K, names, others=cfg.weights.others)
        self.step_K = noise_weights(sigmas, kind, noise_level) if cfg.weights.by_noise else None
        self.ease = list(names).index(self.shaping.focal_reward) if self.shaping.focal else None

    def __call__(self, scores_PGR: Tensor) -> Credit:
        credit = credit_table(scores_PGR, self.weights_KR, self.function, self.settings, self.clamp)
        group_P = None if self.ease is None else focal_weights(scores_PGR[..., self.ease], self.shaping.focal)
        return credit.emphasised(self.step_K, group_P)


def prompt_weights(weights: Weights, steps: int) -> Tensor:
    """The prompt reward's weight at each of ``steps`` steps [K], as the table ``weights`` says."""
    match weights.type:
        case "constant":
            return constant_weights(steps, weights.prompt)
        case "measured":
            return measured_weights(weights.measured)
        case _:
            return sigmoid_weights(steps, weights.high, weights.low, inverted=weights.type == "inverted")
