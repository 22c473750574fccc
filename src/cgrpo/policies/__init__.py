"""encode, velocity, decode: the only room that imports diffusers and peft."""

from cgrpo.policies.adapter_formats import adapter_to_stock, adapter_to_uno, stock_to_adapter, uno_to_adapter
from cgrpo.policies.adapters import (
    adapter_state,
    add_adapter,
    load_adapter,
    merged_state,
    named_parameters,
    read_adapter,
    reference_policy,
    save_adapter,
    set_adapter_state,
    trainable_parameters,
)
from cgrpo.policies.base import Policy
from cgrpo.policies.flux import FluxPolicy
from cgrpo.policies.latents import LatentCodec, pack, unpack
from cgrpo.policies.positions import PositionScheme, position_ids
from cgrpo.policies.preprocess import read_picture, resize_reference
from cgrpo.policies.text import PromptEncoder

__all__ = [
    "FluxPolicy",
    "LatentCodec",
    "Policy",
    "PositionScheme",
    "PromptEncoder",
    "adapter_state",
    "adapter_to_stock",
    "adapter_to_uno",
    "add_adapter",
    "load_adapter",
    "merged_state",
    "named_parameters",
    "pack",
    "position_ids",
    "read_adapter",
    "read_picture",
    "reference_policy",
    "resize_reference",
    "save_adapter",
    "set_adapter_state",
    "stock_to_adapter",
    "trainable_parameters",
    "uno_to_adapter",
    "unpack",
]
