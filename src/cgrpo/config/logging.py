"""The table ``logging``: what is shown while a run goes on."""

from __future__ import annotations

from typing import Literal

from cgrpo.section import Positive, Section


class Logging(Section):
    tracker: Literal["tensorboard", "wandb", "trackio", "none"] = "tensorboard"
    """Where curves go beside metrics.jsonl: TensorBoard writes into the run directory, others are to be installed."""
    samples_every: Positive = 10
    """Iterations between grids of samples."""
