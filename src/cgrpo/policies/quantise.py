"""A frozen base in 8 bits."""

from __future__ import annotations

from typing import Any

from torch import nn

from cgrpo.errors import UserError
from cgrpo.policies.adapters.layers import fuse
from cgrpo.policies.adapters.layouts import FLUX, Layout


def quantise_blocks(transformer: Any, layout: Layout = FLUX) -> None:
    """Turn the blocks' matrices into int8, a scale for each row (torchao, weights only), before an adapter is added.

    Products compute in the dtype of their input. Half the memory of bfloat16; the base is another one by rounding,
    and no adapter can be merged into it. Raises UserError where torchao is not installed.
    """
    try:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_
    except ImportError:
        cure = "pip install 'customized-grpo[int8]', or set policy.quantise = none"
        raise UserError(f"policy.quantise = int8: the package torchao is not installed; {cure}") from None
    if layout.fused:
        fuse(transformer)
    quantize_(
        transformer,
        Int8WeightOnlyConfig(),
        filter_fn=lambda module, name: isinstance(module, nn.Linear) and "transformer_blocks." in name,
    )
