"""LoRA on a diffusers transformer: add, switch off, save, load, merge. Where it sits is the family's (layouts.py).

FLUX's sits on fused projections, because UNO has one down matrix for q, k and v: the same parameters, the same
gradients, and a 1:1 way to and from the released checkpoints. On disk the adapter is split (keys.py),
so that any stock pipeline loads it. The delta is always up(down(x)): alpha equals the rank.

Training may start from somebody's adapter in two ways: ``merge_start`` makes it part of the base, with a
fresh LoRA on top (the paper's way), ``continue_start`` trains it further beside a frozen copy.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from cgrpo.errors import UserError
from cgrpo.policies.adapters.files import (
    FILE_NAME,
    Origin,
    adapter_fingerprint,
    check_origin,
    header_origin,
    naming,
    origin_header,
    read_for,
    read_split,
    write_adapter,
)
from cgrpo.policies.adapters.keys import State, adapter_to_stock, pairs, to_split
from cgrpo.policies.family import refuse_other_family
from cgrpo.policies.layouts import Layout
from cgrpo.weights import refuse_misfit

_NAME = "default"
_REFERENCE = "reference"  # the frozen starting adapter


def add_adapter(transformer: Any, rank: int, seed: int, layout: Layout) -> None:
    """Freeze the transformer (fused as ``layout`` asks) and add a LoRA that trains and, for now, changes nothing.

    A ~ N(0, 1 / rank^2) from ``seed`` alone (the global random state is neither read nor moved),
    B = 0; both in fp32 on a base of fp32 or less, in float64 on a float64 base. Raises UserError if there
    already is an adapter.
    """
    if _lora_layers(transformer):
        raise UserError("the transformer already carries an adapter; load a fresh base first")
    if rank < 1:
        raise UserError(f"adapter rank {rank}: must be 1 or more")
    if layout.fused:
        fuse(transformer)
    transformer.requires_grad_(False)
    _inject(transformer, rank, _NAME, layout)
    generator = torch.Generator().manual_seed(seed)
    for layer in _lora_layers(transformer).values():
        with torch.no_grad():
            down, up = layer.lora_A[_NAME].weight, layer.lora_B[_NAME].weight
            if down.is_meta:  # there are no numbers
                continue
            down.copy_(torch.randn(down.shape, generator=generator) / rank)
            up.zero_()


def merge_start(transformer: Any, path: str | Path, layout: Layout) -> str:
    """Add an adapter file's delta to the base weights, in place, before ``add_adapter``; returns its fingerprint.

    W = W + B A in fp32, rounded to W's dtype. Any LoRA on linear layers is taken, whatever its ranks.
    Raises UserError, with nothing changed, if it doesn't fit the transformer.
    """
    if _lora_layers(transformer):
        raise UserError(f"{path}: the transformer already carries an adapter; merge the start into a fresh base")
    state, header = read_split(path, layout)
    refuse_other_family(path, state, layout)
    _refuse_merged(path, header)
    merge_pairs(transformer, state, path)
    return adapter_fingerprint(state)


@torch.no_grad()
def merge_pairs(transformer: Any, split: Mapping[str, Tensor], where: object) -> None:
    """``merge_start`` for tensors by ``read_split`` key; ``where`` names them in errors."""
    weights = dict(transformer.named_parameters())
    deltas = {f"{module}.weight": matrices for module, matrices in pairs(split).items()}
    refuse_misfit(
        where,
        missing=(),
        unknown=deltas.keys() - weights.keys(),
        misshapen=[
            key
            for key, (down, up) in deltas.items()
            if key in weights and weights[key].shape != (up.shape[0], down.shape[1])
        ],
        cure="it's of another base model",
    )
    for key, (down, up) in deltas.items():
        weight = weights[key]
        if weight.is_floating_point() and weight.itemsize == 1:  # 8 bits can't hold the sum
            weight.data = weight.data.bfloat16()
        dtype = torch.promote_types(weight.dtype, torch.float32)
        delta = up.to(weight.device, dtype) @ down.to(weight.device, dtype)
        weight.copy_(weight.to(dtype) + delta)


def continue_start(transformer: Any, path: str | Path, layout: Layout) -> str:
    """Train an adapter file further: a trainable copy of it, of its rank, and a frozen one; returns its fingerprint.

    The frozen copy is what ``reference_policy`` then shows. Raises UserError if it doesn't fit.
    """
    state, header = read_for(path, layout)
    _refuse_merged(path, header)
    add_adapter(transformer, _rank(state), 0, layout)
    with naming(path):
        set_adapter_state(transformer, state)
    _inject(transformer, _rank(state), _REFERENCE, layout)
    with torch.no_grad():
        for name, layer in _lora_layers(transformer).items():
            layer.lora_A[_REFERENCE].weight.copy_(state[f"{name}.lora_A.weight"])
            layer.lora_B[_REFERENCE].weight.copy_(state[f"{name}.lora_B.weight"])
            layer.set_adapter(_NAME)  # which also freezes the other
    return adapter_fingerprint(to_split(state))


def named_parameters(transformer: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that require gradients by name, in the module's order."""
    return {name: p for name, p in transformer.named_parameters() if p.requires_grad}


def active_weights(transformer: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The transformer's weights by its own names; without the trained adapter's within ``reference_policy``.

    Of an int8 matrix what it is made of: numbers and scales.
    """
    layers = _lora_layers(transformer).values()
    off = any(layer.disable_adapters or _NAME not in layer.active_adapters for layer in layers)
    for name, value in transformer.state_dict().items():
        if off and ".lora_" in name and f".{_NAME}." in name:
            continue
        if is_traceable_wrapper_subclass(value):
            yield from ((f"{name}.{part}", getattr(value, part)) for part in value.__tensor_flatten__()[0])
        else:
            yield name, value


@contextmanager
def reference_policy(transformer: nn.Module) -> Iterator[None]:
    """Within it the transformer is what training started from: the reference of a KL term.

    That is the frozen starting adapter if there is one (``continue_start``), else the base alone (with its
    start, where one was merged in). Restores ``requires_grad`` on leaving.
    """
    layers = _require_layers(transformer)
    flags = [(p, p.requires_grad) for layer in layers.values() for p in layer.parameters()]
    for layer in layers.values():
        if _REFERENCE in layer.lora_A:
            layer.set_adapter(_REFERENCE)
        else:
            layer.enable_adapters(False)
    for parameter, _ in flags:  # peft would train whatever is active
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for layer in layers.values():
            layer.enable_adapters(True)
            layer.set_adapter(_NAME)
        for parameter, flag in flags:  # peft switches gradients off and on along with the adapter
            parameter.requires_grad_(flag)


def adapter_state(transformer: nn.Module) -> State:
    """The adapter's tensors by fused key (keys.py): not copies."""
    state = {}
    for name, layer in _require_layers(transformer).items():
        state[f"{name}.lora_A.weight"] = layer.lora_A[_NAME].weight.detach()
        state[f"{name}.lora_B.weight"] = layer.lora_B[_NAME].weight.detach()
    return state


def set_adapter_state(transformer: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy tensors by fused key into the adapter.

    Raises UserError naming every missing, surplus and mis-shaped key at once; nothing is copied then.
    """
    own = adapter_state(transformer)
    refuse_misfit(
        "adapter",
        missing=own.keys() - state.keys(),
        unknown=state.keys() - own.keys(),
        misshapen=[key for key in own.keys() & state.keys() if own[key].shape != state[key].shape],
        cure="is it of another base or rank?",
    )
    for key, value in own.items():
        value.copy_(state[key])


def save_adapter(transformer: nn.Module, folder: str | Path, *, origin: Origin) -> Path:
    """Write the adapter to ``folder``/pytorch_lora_weights.safetensors, in one move; returns the file.

    The stock pipeline's ``load_lora_weights(folder)`` reads it. Rank, alpha and ``origin`` go into the file's header.
    """
    state = adapter_state(transformer)
    return write_adapter(Path(folder) / FILE_NAME, adapter_to_stock(state), origin_header(origin, _rank(state)))


def load_adapter(
    transformer: Any,
    path: str | Path,
    origin: Origin | None = None,
    *,
    layout: Layout,
    base_differs: bool = False,
) -> dict[str, str]:
    """Load an adapter file into the transformer's adapter; returns the file's header.

    Where there is no adapter yet, one of the file's rank is added. ``origin`` is what this transformer is;
    None leaves it unchecked. Raises UserError if the file doesn't fit or belongs to other weights.
    """
    state, header = read_for(path, layout)
    if origin is not None:
        check_origin(path, header, origin, base_differs)
    if not _lora_layers(transformer):
        add_adapter(transformer, _rank(state), 0, layout)
    with naming(path):
        set_adapter_state(transformer, state)
    return header


def _inject(transformer: Any, rank: int, name: str, layout: Layout) -> None:
    """Add an adapter called ``name`` and make it the active one; its values are whatever peft draws."""
    from peft import LoraConfig

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # two adapters are what we want
        warnings.filterwarnings("ignore", "TorchaoLoraLinear was instantiated")  # nothing is merged into int8
        unread = layout.unread.format(last=len(transformer.transformer_blocks) - 1) or None
        settings = LoraConfig(
            r=rank, lora_alpha=rank, bias="none", target_modules=layout.targets, exclude_modules=unread
        )
        transformer.add_adapter(settings, name)
    for layer in _lora_layers(transformer).values():
        dtype = torch.promote_types(layer.weight.dtype, torch.float32)
        for matrices in (layer.lora_A, layer.lora_B):
            matrices[name].to(dtype).requires_grad_(True)


def _refuse_merged(path: str | Path, header: Mapping[str, str]) -> None:
    origin = header_origin(header)
    if origin is not None and origin.start_mode == "merge":
        raise UserError(
            f"{path}: itself trained on a base with start {origin.start_hash[:12]} merged in, so no start on the plain "
            "base; join it with that start first: `cgrpo adapter convert`"
        )


def fuse(transformer: Any) -> None:
    """Fuse q, k and v, and drop the separate ones, which the forward no longer reads: they'd double the memory."""
    with torch.random.fork_rng(devices=[]):  # new layers draw a first initialisation, overwritten at once
        transformer.fuse_qkv_projections()
    for module in transformer.modules():
        for name in ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj"):
            if name in module._modules:
                del module._modules[name]


def _lora_layers(transformer: nn.Module) -> dict[str, Any]:
    """Adapter layers by module name, in the module's order. Any: peft's module dicts carry no types."""
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in transformer.named_modules() if isinstance(module, LoraLayer)}


def _require_layers(transformer: nn.Module) -> dict[str, Any]:
    layers = _lora_layers(transformer)
    if not layers:
        raise UserError("the transformer carries no adapter; add or load one first")
    return layers


def _rank(state: Mapping[str, Tensor]) -> int:
    ranks = [value.shape[0] for key, value in state.items() if key.endswith("lora_A.weight")]
    if not ranks:
        raise UserError("adapter: holds no LoRA matrices; is this another file?")
    return ranks[0]
