"""Time and guidance in full precision, whatever the model's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel


def keep_exact_time(transformer: FluxTransformer2DModel) -> None:
    """Let 1000 * sigma and 1000 * guidance reach their embeddings in fp32, whatever the model's dtype.

    The stock forward casts both to the dtype of its first linear layer. Under bf16 (weights or
    autocast) that turns 986 into 984 and 731 into 732: neighbouring steps get one time, and the
    velocity differs visibly from UNO's. Two hooks: one sees what the caller passed, the other hands
    it to the embedding. Installed twice, they do the same.
    """
    passed: dict[str, Tensor | None] = {}

    def remember(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        passed.update(timestep=kwargs["timestep"], guidance=kwargs.get("guidance"))

    def replace(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        exact = [value.float() * 1000 for value in passed.values() if value is not None]
        return (*exact, args[-1])

    transformer.register_forward_pre_hook(remember, with_kwargs=True)
    transformer.time_text_embed.register_forward_pre_hook(replace)
