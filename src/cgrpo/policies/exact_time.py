"""Time and guidance in full precision, whatever the model's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def keep_exact_time(transformer: nn.Module, embedding: nn.Module, dtype: torch.dtype = torch.float32) -> None:
    """Let 1000 * sigma and 1000 * guidance reach ``embedding`` as fp32 numbers, whatever the model's dtype.

    ``embedding`` is the part of ``transformer`` that takes them first. ``dtype``: what they are handed over in.

    The stock forward casts both to the dtype of its first linear layer. Under bf16 (weights or
    autocast) that turns 986 into 984 and 731 into 732: neighbouring steps get one time, and the
    velocity differs visibly from UNO's. Two hooks: one sees what the caller passed, the other hands
    it to the embedding. Installed twice, they do the same.
    """
    passed: dict[str, Tensor | None] = {}

    def remember(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        passed.update(timestep=kwargs["timestep"], guidance=kwargs.get("guidance"))

    def replace(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        exact = [(value.float() * 1000).to(dtype) for value in passed.values() if value is not None]
        return (*exact, *args[len(exact) :])

    transformer.register_forward_pre_hook(remember, with_kwargs=True)
    embedding.register_forward_pre_hook(replace)
