"""The settings of method "sft"."""

from __future__ import annotations

from typing import Literal

from cgrpo.config.run import Config
from cgrpo.section import Positive, Section


class Supervised(Section):
    batch: Positive = 256
    """Pairs per iteration over all processes; must be divisible by their number."""


class SftConfig(Config):
    """Supervised fine-tuning on target pictures, the paper's baseline; rewards are computed on held-out tasks alone."""

    loop = "cgrpo.training.sft.loop:SFT"
    health = "The loss has noise levels and noise of its own in every iteration, so its norm jumps."
    method: Literal["sft"] = "sft"
    supervised: Supervised = Supervised()

    def share(self) -> tuple[int, str]:
        return self.supervised.batch, "supervised.batch"

    def title(self) -> str:
        return "Supervised fine-tuning on target pictures"

    def facts(self) -> dict[str, str]:
        return {"Pairs": f"{self.supervised.batch} an iteration", "Sampling": f"{self.sampling.steps} steps"}
