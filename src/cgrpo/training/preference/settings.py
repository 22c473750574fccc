"""The settings of method "preference"."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cgrpo.config.run import Config
from cgrpo.section import Place, Positive, Section, Share


class Preferences(Section):
    pairs: Place = ""
    """Pairs as JSON lines (docs/reference/data.md). Empty: they are made before the training, and kept in the run: of
    pictures that the frozen base draws from the prompt alone, the harmonic mean of the rewards picks winner, loser."""
    tasks: Positive = 192
    """Tasks to make pairs for."""
    candidates: Annotated[int, Field(ge=2, lt=4096)] = 4
    """Pictures drawn for each of them."""
    prompt: Share = 0.5
    """Weight of the prompt reward in the harmonic mean; identity gets the rest."""
    batch: Positive = 32
    """Pairs per iteration over all processes; must be divisible by their number."""
    beta: Annotated[float, Field(gt=0)] = 500.0
    """How far the policy may go from the base for a preference, less for more; for errors averaged over latent
    dimensions."""
    similarity: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the flow-matching loss on the first reference itself (RPO's similarity loss); 0 is off."""


class PreferenceConfig(Config):
    """Offline preference optimisation (RPO, Flow-DPO) on pairs of a winner and a loser; rewards choose them, if at
    all, before the training."""

    loop = "cgrpo.training.preference.loop:Preference"
    health = "The margin is by how much more than the base the policy prefers winners; it starts at 0."
    method: Literal["preference"] = "preference"
    preference: Preferences = Preferences()

    @model_validator(mode="after")
    def _rewards_that_choose(self) -> Self:
        shares = {"prompt": self.preference.prompt, "identity": 1 - self.preference.prompt}
        for name, share in shares.items():
            if share and name not in self.rewards and not self.preference.pairs:
                raise ValueError(f"reward {name!r} chooses pairs but is left out; give rewards.{name}, or set pairs")
        return self

    def share(self) -> tuple[int, str]:
        return self.preference.batch, "preference.batch"

    def title(self) -> str:
        given = "pairs that were given" if self.preference.pairs else "pairs chosen by the harmonic mean of the rewards"
        loss = "RPO: Flow-DPO and similarity loss" if self.preference.similarity else "Flow-DPO"
        return f"{loss} on {given}"

    def facts(self) -> dict[str, str]:
        settings = self.preference
        made = f"from {settings.candidates} pictures for each of {settings.tasks} tasks"
        return {
            "Pairs": f"{settings.batch} an iteration, {settings.pairs or made}",
            "Loss": f"beta {settings.beta:g}, similarity {settings.similarity:g}",
            "Sampling": f"{self.sampling.steps} steps",
        }
