"""The tables ``shaping`` and ``weights``: how a method fills the credit table. They know nothing of the method."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cgrpo.config.section import Section, Share


class Shaping(Section):
    type: Literal["tanh", "none", "harmonic", "min", "max"] = "tanh"
    """The synergy function (Eq. 10-11, Table 3): tanh is SARS, none is naive GRPO; min and max replace the sum."""
    alpha: Annotated[float, Field(ge=0)] = 0.5
    """Strength of the synergy bonus (the paper: 0.5; the release: 0.4)."""
    recentre: bool = False
    """Subtract the bonus's mean in each group, which SARS otherwise moves below 0."""


class Weights(Section):
    type: Literal["sigmoid", "inverted", "constant"] = "sigmoid"
    """Weights over denoising steps: Timestep-Aware Dynamic Weighting (Eq. 12), its inverse, or a constant."""
    high: Share = 0.7
    """Prompt weight in the first phase of "sigmoid"."""
    low: Share = 0.3
    """Prompt weight in the last phase of "sigmoid"."""
    prompt: Share = 0.5
    """Prompt weight of "constant"; identity gets the rest (identity:prompt 1:1 is 0.5, 1:1.5 is 0.6)."""
    others: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """Constant weights of other rewards by name, beside those two; one that is not named here is watched only."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low ({self.low}) must not exceed high ({self.high}); use type = 'inverted' to swap them")
        return self


def credit_in_words(shaping: Shaping, weights: Weights) -> str:
    """How these two fill the table, in the paper's words: "SARS + TDW", or what stands there in place of either."""
    if shaping.type in ("min", "max"):
        return f"the {shaping.type} of the advantages"
    ratio = f"{weights.prompt:.2g} : {1 - weights.prompt:.2g}"
    schedule = {"sigmoid": "TDW", "inverted": "inverted TDW", "constant": f"constant weights {ratio}"}[weights.type]
    bonus = {"tanh": "SARS", "harmonic": "harmonic synergy", "none": ""}[shaping.type]
    if not bonus and weights.type == "constant":
        return f"weights prompt : identity = {ratio}"
    return " + ".join(filter(None, (bonus, schedule)))
