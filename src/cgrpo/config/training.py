"""The table ``training``: what every method's loop has."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cgrpo.section import Positive, Section, Seed, Share


class Training(Section):
    iterations: Annotated[int, Field(ge=0)] = 80
    """How many; 0 evaluates the base alone."""
    micro_batch: Positive = 54
    """(sample, step) pairs, or pairs of reference and target, per forward and backward; bounds memory, does not change
    the result."""
    learning_rate: Annotated[float, Field(gt=0)] = 3e-4
    """AdamW (the paper: 1e-5 at rank 512)."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """AdamW's decoupled weight decay (the paper: 1e-4)."""
    betas: tuple[Share, Share] = (0.9, 0.999)
    """AdamW's decay rates of the gradient's and the squared gradient's running means."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """The learning rate over the run: constant, or falling to 0 behind its last iteration. A run that falls can't be
    continued beyond its length."""
    warmup: Annotated[int, Field(ge=0)] = 0
    """Iterations over which the learning rate first rises."""
    average: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay per iteration of an exponential average of the adapter's weights: it is then what is evaluated, guarded
    and saved as the run's adapter. 0 is off; 0.9 spans about 10 iterations. Early in a run it spans fewer."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """The gradient is scaled down to this norm."""
    checkpoint_every: Positive = 10
    """Iterations between checkpoints; the last iteration always leaves one."""
    keep_checkpoints: Positive = 2
    """Older checkpoints are deleted."""
    parallel: Literal["ddp", "fsdp2"] = "ddp"
    """Several processes: the whole base on each, or the frozen base sharded over them (FSDP2). The adapter is on
    each, and its gradients are summed."""
    seed: Seed = 0
    """Of the adapter, the tasks and all noise."""
