"""A frozen base in 8 bits."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from cgrpo.errors import UserError
from cgrpo.policies.adapters.layers import fuse
from cgrpo.policies.adapters.layouts import FLUX, Layout


def quantise_blocks(transformer: Any, layout: Layout = FLUX) -> None:
    """Turn the blocks' matrices into int8, a scale for each row (torchao, weights only), before an adapter is added.

    Block by block, where the transformer lies: beside it there is never more than a block's work.
    Products compute in the dtype of their input. Half the memory of bfloat16; the base is another one by rounding,
    and no adapter can be merged into it. Raises UserError where torchao is not installed.
    """
    try:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_
    except ImportError:
        cure = "pip install torchao, or set policy.quantise = none"
        raise UserError(f"policy.quantise = int8: the package torchao is not installed; {cure}") from None
    if layout.fused:
        fuse(transformer)
    for name, block in transformer.named_modules():
        if re.fullmatch(r"(single_)?transformer_blocks\.\d+", name):  # one at a time, and no copy of the others
            quantize_(block, Int8WeightOnlyConfig(), filter_fn=lambda module, _: isinstance(module, nn.Linear))
