"""Gradient checkpointing of the transformer's blocks: memory for time, the same gradients."""

from __future__ import annotations

import functools
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
    noop_context_fn,
)

Checkpointing = Literal["off", "selective", "full"]

# The dear operations: their results are kept, everything between them is cheap to compute again. Not among them are
# the adapter's products, a tenth of the work and a third of the memory. They have no bias, so they are aten.mm; where
# the base's have none either, the adapter's are told by a matrix with a side (the rank) below the model's width.
_KEPT = {
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
}


def set_checkpointing(transformer: Any, mode: Checkpointing) -> None:
    """What a block leaves in memory for its backward pass.

    "off" everything, "full" its inputs alone (the whole block is computed a second time), "selective" its
    inputs and the results of the base's matrix products and of attention (norms, modulation, rotary embedding,
    activations and the adapter's products are computed a second time).
    """
    if mode == "off":
        transformer.disable_gradient_checkpointing()
        return
    policy = functools.partial(_policy, width=transformer.inner_dim)
    selective = functools.partial(create_selective_checkpoint_contexts, policy)

    def run(block: nn.Module, *inputs: Any) -> Any:
        context = selective if mode == "selective" else noop_context_fn
        return checkpoint(block, *inputs, use_reentrant=False, context_fn=context)

    transformer.enable_gradient_checkpointing(run)


def _policy(context: Any, operation: Any, *args: Any, width: int, **kwargs: Any) -> CheckpointPolicy:
    base = operation is torch.ops.aten.mm.default and min(args[1].shape) >= width
    return CheckpointPolicy.MUST_SAVE if base or operation in _KEPT else CheckpointPolicy.PREFER_RECOMPUTE
