"""The settings of method "grpo"."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cgrpo.config.credit import WITH_BONUS, credit_in_words
from cgrpo.config.groups import GroupConfig, GroupSampling
from cgrpo.section import Positive, Section


class Window(Section):
    type: Literal["all", "fraction", "sliding"] = "fraction"
    """Which steps are trained: all but the last, a random share drawn anew for each sample (the release), or a
    sliding window outside of which sampling is deterministic (MixGRPO)."""
    fraction: Annotated[float, Field(gt=0, le=1)] = 0.6
    """Share of the first T - 1 steps that "fraction" trains."""
    size: Positive = 4
    """Steps in the "sliding" window."""
    stride: Positive = 1
    """Steps by which the "sliding" window moves on."""
    every: Positive = 1
    """Iterations between two moves of the "sliding" window."""


class StochasticSampling(GroupSampling):
    kind: Literal["constant", "flow-grpo", "cps"] = "constant"
    """How a stochastic step draws its noise (Eq. 13): constant g, Flow-GRPO's, or Flow-CPS's."""
    noise_level: Annotated[float, Field(ge=1e-6)] = 0.5
    """eta of "constant" (the release: 0.4), a of "flow-grpo" (0.7) and "cps"."""
    window: Window = Window()

    @model_validator(mode="after")
    def _room_for_the_window(self) -> Self:
        if self.window.type == "sliding" and self.window.size > self.steps - 1:
            raise ValueError(f"window.size ({self.window.size}) must be below steps ({self.steps})")
        return self


class Surrogate(Section):
    clip: Annotated[float, Field(gt=0, lt=1)] = 1e-3
    """Clip range of the ratio, for log-probabilities averaged over latent dimensions (the release: 1e-4)."""
    kl: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the KL divergence to the adapter-off policy; 0 is off (the paper)."""
    max_ratio_drift: Annotated[float, Field(gt=0)] = 1e-3
    """The run stops when |ratio - 1| before the first update exceeds this: rollout and replay disagree."""


class GrpoConfig(GroupConfig):
    """Online reinforcement learning: the paper's method, and every other credit function."""

    loop = "cgrpo.training.grpo.loop:GRPO"
    health = "Before the first update rollout and replay must agree: the ratio's drift from 1 is rounding alone."
    method: Literal["grpo"] = "grpo"
    sampling: StochasticSampling = StochasticSampling()
    objective: Surrogate = Surrogate()

    def title(self) -> str:
        words = credit_in_words(self.shaping, self.weights)
        if self.shaping.type in ("min", "max"):
            return f"GRPO on {words}"
        if self.shaping.type not in WITH_BONUS:
            return f"GRPO: {words}"
        naive = self.shaping.type == "none" and self.weights.type == "constant"
        return f"Naive GRPO, {words}" if naive else f"Customized-GRPO: {words}"

    def limits(self) -> dict[str, float]:
        return {"ratio_drift": self.objective.max_ratio_drift}

    def facts(self) -> dict[str, str]:
        sampling = self.sampling
        return super().facts() | {"Sampling": f"{sampling.steps} steps, {sampling.kind} noise {sampling.noise_level:g}"}
