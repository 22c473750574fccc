"""The credit functions by name, and the tables ``shaping`` and ``weights``, for every method with a credit table."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from cgrpo.extensions import Extensions
from cgrpo.section import Section, Share

CREDITS = Extensions(
    "credit function",
    "cgrpo.credits",
    {
        "tanh": "cgrpo.algorithm:sars",
        "none": "cgrpo.algorithm:linear",
        "harmonic": "cgrpo.algorithm:harmonic",
        "one-sided": "cgrpo.algorithm:one_sided",
        "min": "cgrpo.algorithm:minimum",
        "max": "cgrpo.algorithm:maximum",
        "raw-sum": "cgrpo.algorithm:raw_sum",
        "gdpo": "cgrpo.algorithm:gdpo",
        "apex": "cgrpo.algorithm:apex",
        "dyref": "cgrpo.algorithm:dyref",
    },
)
WITH_BONUS = ("tanh", "none", "harmonic")  # "none": a bonus of 0


class Shaping(Section):
    type: Annotated[str, AfterValidator(CREDITS.check)] = "tanh"
    """The credit function: how the rewards become one credit. By their synergy (Eq. 10-11, Table 3): "tanh" is SARS,
    "none" is naive GRPO, "min" and "max" replace the sum. "one-sided" keeps the part of SARS that punishes a gain of
    ``focal_reward`` at another's cost. Of other papers, without a bonus: "raw-sum" adds scores before it normalises
    them, "gdpo" normalises the sum once more over the batch, "apex" gives rewards adaptive priorities, "dyref" is gdpo
    with the identity of all subjects through a sigmoid."""
    alpha: Annotated[float, Field(ge=0)] = 0.5
    """Strength of the synergy bonus (the paper: 0.5; the release: 0.4)."""
    recentre: bool = False
    """Subtract the bonus's mean in each group, which SARS otherwise moves below 0."""
    conflict_penalty: Share = 0.5
    """"apex": how much less a reward counts in a group in which the others are its exact opposite."""
    focal: Annotated[float, Field(ge=0)] = 0.0
    """Groups count by (1 - p)^focal, p the mean score of ``focal_reward`` in the group: hard ones more (DyRef: 2). 0 is
    off."""
    focal_reward: str = "identity"
    """The reward that says how easy a group is (1 must be its best score), and the one that "one-sided" guards
    against."""

    @model_validator(mode="after")
    def _recentred_bonus(self) -> Self:
        if self.recentre and self.type not in WITH_BONUS:
            raise ValueError(f"recentre needs a bonus that is added; type {self.type!r} has none")
        return self


class Weights(Section):
    type: Literal["sigmoid", "inverted", "constant", "measured"] = "sigmoid"
    """Weights over denoising steps: Timestep-Aware Dynamic Weighting (Eq. 12), its inverse, a constant, or a schedule
    that was measured."""
    high: Share = 0.7
    """Prompt weight in the first phase of "sigmoid"."""
    low: Share = 0.3
    """Prompt weight in the last phase of "sigmoid"."""
    prompt: Share = 0.5
    """Prompt weight of "constant"; identity gets the rest (identity:prompt 1:1 is 0.5, 1:1.5 is 0.6)."""
    measured: tuple[Share, ...] = ()
    """Prompt weight of "measured" at each of ``sampling.steps`` steps, from noise to image; identity gets the rest."""
    by_noise: bool = False
    """Steps count as they draw noise, all rewards alike, 1 on average (TempFlow). Method "grpo": the noise of its own
    sampling; "forward", which draws none: Flow-GRPO's."""
    subjects: Annotated[int, Field(ge=1, le=16)] = 1
    """Subjects of each task, a reference each. Above 1 each one's identity is a reward of its own, "identity_1" and so
    on, with an equal share of identity's weight; the data has a phrase for each reference."""
    others: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """Constant weights of other rewards by name, beside those two; one that is not named here is watched only."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low ({self.low}) must not exceed high ({self.high}); use type = 'inverted' to swap them")
        return self


def credit_in_words(shaping: Shaping, weights: Weights) -> str:
    """What makes the credit, in the paper's words: "SARS + TDW", or what stands there in place of either."""
    emphasis = [f"groups by (1 - {shaping.focal_reward})^{shaping.focal:g}"] if shaping.focal else []
    emphasis += ["steps by their noise"] if weights.by_noise else []
    return ", ".join([_function(shaping, weights), *emphasis])


def _function(shaping: Shaping, weights: Weights) -> str:
    if shaping.type in ("min", "max"):
        return f"the {shaping.type} of the advantages"
    ratio = f"{weights.prompt:.2g} : {1 - weights.prompt:.2g}"
    schedules = {"sigmoid": "TDW", "inverted": "inverted TDW", "measured": "measured weights"}
    schedule = schedules.get(weights.type, f"constant weights {ratio}")
    rivals = {"raw-sum": "raw sum of the rewards", "gdpo": "GDPO", "apex": "adaptive priorities (after APEX)"}
    rivals["dyref"] = "DyRef"
    bonus = {"tanh": "SARS", "harmonic": "harmonic synergy", "one-sided": "one-sided SARS", "none": ""} | rivals
    name = bonus.get(shaping.type, shaping.type)
    if shaping.type == "none" and weights.type == "constant":
        return f"weights prompt : identity = {ratio}"
    return " + ".join(filter(None, (name, schedule)))
