"""What saves memory or time: gradient checkpointing, attention, 8-bit weights, models that wait on the CPU."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.attention_dispatch import AttentionBackendName, attention_backend, dispatch_attention_fn
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts, noop_context_fn

from cgrpo.errors import UserError
from cgrpo.policies.settings import Attention, Checkpointing

# The dear operations: their results are kept, everything between them is cheap to compute again. Not among them are
# the adapter's products, a tenth of the work and a third of the memory. They have no bias, so they are aten.mm; where
# the base's have none either, the adapter's have a matrix with a side (the rank) below the model's width.
_KEPT = {
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
}

_BACKENDS: dict[Attention, str] = {  # diffusers' names
    "math": "_native_math",
    "efficient": "_native_efficient",
    "flash": "_native_flash",
    "cudnn": "_native_cudnn",
    "flash-attn-2": "flash",
    "flash-attn-3": "_flash_3",
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
    policy = functools.partial(_policy, width=width_of(transformer))
    selective = functools.partial(create_selective_checkpoint_contexts, policy)

    def run(block: nn.Module, *inputs: Any) -> Any:
        context = selective if mode == "selective" else noop_context_fn
        return checkpoint(block, *inputs, use_reentrant=False, context_fn=context)

    transformer.enable_gradient_checkpointing(run)


def width_of(transformer: Any) -> int:
    """Features of a token between the transformer's blocks."""
    config = transformer.config
    return config["num_attention_heads"] * config["attention_head_dim"]


def _policy(context: Any, operation: Any, *args: Any, width: int, **kwargs: Any) -> CheckpointPolicy:
    base = operation is torch.ops.aten.mm.default and min(args[1].shape) >= width
    return CheckpointPolicy.MUST_SAVE if base or operation in _KEPT else CheckpointPolicy.PREFER_RECOMPUTE


def set_attention(transformer: Any, name: Attention, device: torch.device, dtype: torch.dtype) -> None:
    """Let the blocks compute attention as ``name`` says, on ``device`` in ``dtype``.

    Raises UserError where that can't be done there, or its package is not installed: it is tried on a few tokens.
    """
    if name == "default":
        return
    few = torch.zeros(1, 16, 1, transformer.config["attention_head_dim"], device=device, dtype=dtype)
    try:
        with attention_backend(AttentionBackendName.NATIVE):  # else other models of this process would change, too
            transformer.set_attention_backend(_BACKENDS[name])
            dispatch_attention_fn(few, few, few, backend=AttentionBackendName(_BACKENDS[name]))
    except (RuntimeError, ValueError) as error:
        where = f"on {device.type} in {str(dtype).removeprefix('torch.')}"
        raise UserError(f"policy.attention = {name} does not work {where}: {error}", "leave it at default") from None


def quantise_blocks(blocks: Iterable[nn.Module]) -> None:
    """Turn the blocks' matrices into int8, a scale for each row (torchao, weights only), before an adapter is added and
    after projections are fused.

    Block by block, where the transformer lies: beside it there is never more than a block's work.
    Products compute in the dtype of their input. Half the memory of bfloat16; the base is another one by rounding,
    and no adapter can be merged into it. Raises UserError where torchao is not installed.
    """
    try:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_
    except ImportError:
        cure = "pip install torchao, or set policy.quantise = none"
        raise UserError(f"policy.quantise = int8: the package torchao is not installed; {cure}") from None
    for block in blocks:
        quantize_(block, Int8WeightOnlyConfig(), filter_fn=lambda module, _: isinstance(module, nn.Linear))


@contextmanager
def on_device(device: torch.device, *modules: nn.Module, offload: bool) -> Iterator[None]:
    """With ``offload``, the modules are on ``device`` within and on the CPU after; else they stay where they are."""
    if not offload:
        yield
        return
    try:
        for module in modules:
            module.to(device)
        yield
    finally:
        for module in modules:
            module.to("cpu")
