"""encode, velocity, decode: the only room that imports diffusers and peft."""

from cgrpo.hub import locate
from cgrpo.policies.adapters.exchange import convert_adapter, inspect_adapter, merge_adapter
from cgrpo.policies.adapters.files import Origin, read_adapter
from cgrpo.policies.adapters.fingerprint import transformer_fingerprint
from cgrpo.policies.adapters.formats import adapter_to_stock, adapter_to_uno, stock_to_adapter, uno_to_adapter
from cgrpo.policies.adapters.layers import (
    adapter_state,
    add_adapter,
    continue_start,
    load_adapter,
    merge_start,
    merged_state,
    named_parameters,
    reference_policy,
    save_adapter,
    set_adapter_state,
)
from cgrpo.policies.base import Policy
from cgrpo.policies.checkpoints.loading import Checkpoint
from cgrpo.policies.encodings.latents import LatentCodec, pack, unpack
from cgrpo.policies.encodings.preprocess import prepare_reference, prepare_references
from cgrpo.policies.encodings.text import PromptEncoder
from cgrpo.policies.fingerprint import file_fingerprint
from cgrpo.policies.flux import FluxCondition, FluxPolicy, PositionScheme, position_ids
from cgrpo.policies.flux2 import Flux2Condition, Flux2Policy
from cgrpo.policies.lora import LoraPolicy

__all__ = [
    "Checkpoint",
    "Flux2Condition",
    "Flux2Policy",
    "FluxCondition",
    "FluxPolicy",
    "LatentCodec",
    "LoraPolicy",
    "Origin",
    "Policy",
    "PositionScheme",
    "PromptEncoder",
    "adapter_state",
    "adapter_to_stock",
    "adapter_to_uno",
    "add_adapter",
    "continue_start",
    "convert_adapter",
    "file_fingerprint",
    "inspect_adapter",
    "load_adapter",
    "locate",
    "merge_adapter",
    "merge_start",
    "merged_state",
    "named_parameters",
    "pack",
    "position_ids",
    "prepare_reference",
    "prepare_references",
    "read_adapter",
    "reference_policy",
    "save_adapter",
    "set_adapter_state",
    "stock_to_adapter",
    "transformer_fingerprint",
    "uno_to_adapter",
    "unpack",
]
