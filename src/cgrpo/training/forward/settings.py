"""The settings of method "forward"."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cgrpo.config.credit import credit_in_words
from cgrpo.config.groups import GroupConfig, GroupSampling, GroupTraining
from cgrpo.section import Positive, Section, Share


class RolloutSampling(GroupSampling):
    rollout_steps: Positive = 5
    """Denoising steps of a rollout. No step is trained, so they may be fewer than ``steps``, which held-out pictures
    take and the credit table has."""
    order: Literal[1, 2] = 2
    """Of the rollout's sampler: Euler, or Adams-Bashforth, which costs the same."""


class ForwardObjective(Section):
    loss: Literal["nft", "awm"] = "nft"
    """DiffusionNFT (implicit positive and negative policies), or advantage-weighted matching."""
    beta: Annotated[float, Field(gt=0)] = 1.0
    """"nft": how far the implicit policies reach beyond the old one; a smaller one lets the policy go further."""
    normalise: bool = True
    """"nft": each error over its own size, so that no noise level outweighs the others."""
    clip: Annotated[float, Field(gt=0, lt=1)] = 1e-3
    """"awm": clip range of the ratio, for errors averaged over latent dimensions."""
    negative: Share = 1.0
    """Weight of credit below 0: with 0 only what was good is learnt from."""
    kl: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the mean squared distance to the adapter-off policy's velocity; 0 is off."""
    old: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The old policy, which samples and about which the loss is built: 0 is the policy as it is, above 0 the decay
    per iteration of an average of its weights. Slower, and stable for longer."""
    levels: Positive = 2
    """Noise levels at which each sample is trained."""
    spread: Literal["uniform", "steps", "logit-normal"] = "uniform"
    """How levels are drawn, in equal shares: evenly in sigma, evenly in the steps of ``sampling`` (a schedule of
    weights then has its average over steps), or most in the middle."""
    shared_noise: bool = True
    """Levels and noise are shared by a group's samples, or each sample's own."""


class ForwardTraining(GroupTraining):
    runaway: Annotated[float, Field(gt=1)] = 4.0
    """An update whose gradient has a norm above this many times the median of the first hundred is left out."""
    runaway_patience: Positive = 3
    """The run ends early after this many iterations in a row without any update."""


class ForwardConfig(GroupConfig):
    """Online reinforcement learning on the forward process; how the credit table is filled is chosen as for GRPO."""

    loop = "cgrpo.training.forward.loop:Forward"
    health = "Before a collapse the gradient's norm rises; updates far above its median are left out."
    method: Literal["forward"] = "forward"
    sampling: RolloutSampling = RolloutSampling()
    training: ForwardTraining = ForwardTraining()
    objective: ForwardObjective = ForwardObjective()

    def title(self) -> str:
        loss = {"nft": "DiffusionNFT", "awm": "AWM"}[self.objective.loss]
        return f"{loss} on the forward process: {credit_in_words(self.shaping, self.weights)}"

    def facts(self) -> dict[str, str]:
        sampling, objective = self.sampling, self.objective
        return super().facts() | {
            "Sampling": f"{sampling.rollout_steps} steps a rollout, order {sampling.order}, no noise",
            "Levels": f"{objective.levels} a sample, {objective.spread}",
        }
