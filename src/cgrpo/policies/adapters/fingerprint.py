"""The fingerprint of the base that an adapter belongs to."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from cgrpo.fingerprint import of_tensors
from cgrpo.policies.adapters.formats import split_projection


def transformer_fingerprint(transformer: nn.Module) -> str:
    """The fingerprint of a FLUX transformer's base weights under stock keys: fused or not, adapters left out."""
    return of_tensors(base_weights(transformer))


def base_weights(transformer: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Base weights by stock FluxTransformer2DModel key, in memory shared with the transformer."""
    for key, value in transformer.state_dict().items():
        if ".lora_" not in key:
            yield from split_projection(key.replace(".base_layer.", "."), value).items()
