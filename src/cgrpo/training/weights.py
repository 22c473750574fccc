"""From the table ``weights`` to numbers, for every method that fills a credit table."""

from __future__ import annotations

from torch import Tensor

from cgrpo.algorithm import constant_weights, sigmoid_weights
from cgrpo.config import Weights


def prompt_weights(weights: Weights, steps: int) -> Tensor:
    """The prompt reward's weight at each of ``steps`` steps [K], as the configuration asks."""
    if weights.type == "constant":
        return constant_weights(steps, weights.prompt)
    return sigmoid_weights(steps, weights.high, weights.low, inverted=weights.type == "inverted")
