"""LoRA on the fused attention projections of a FLUX transformer: add, switch off, save, load, merge.

Fused, because UNO has one down matrix for q, k and v: the same parameters, the same gradients, and
a 1:1 way to and from the released checkpoints. On disk the adapter is split (adapter_formats.py),
so that any stock FluxPipeline loads it. The delta is always up(down(x)): alpha equals the rank.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from cgrpo.errors import UserError
from cgrpo.policies.adapter_formats import State, adapter_to_stock, split_projection, to_adapter

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel

FILE_NAME = "pytorch_lora_weights.safetensors"  # the name that diffusers looks for

# A list of names would not do: "proj_out" alone also matches the transformer's last layer.
TARGETS = (
    r"transformer_blocks\.\d+\.attn\.(to_qkv|to_added_qkv|to_out\.0|to_add_out)"
    r"|single_transformer_blocks\.\d+\.(attn\.to_qkv|proj_out)"
)
_NAME = "default"


def add_adapter(transformer: FluxTransformer2DModel, rank: int, seed: int) -> None:
    """Fuse the projections, freeze the transformer and add a LoRA that trains and, for now, changes nothing.

    A ~ N(0, 1 / rank^2) from ``seed`` alone (the global random state is neither read nor moved),
    B = 0; both in fp32 on a base of fp32 or less, in float64 on a float64 base. Raises UserError if there
    already is an adapter.
    """
    from peft import LoraConfig

    if _lora_layers(transformer):
        raise UserError("the transformer already carries an adapter; load a fresh base first")
    if rank < 1:
        raise UserError(f"adapter rank {rank}: must be 1 or more")
    with torch.random.fork_rng(devices=[]):  # new layers draw a first initialisation, overwritten below
        _fuse(transformer)
        transformer.requires_grad_(False)
        transformer.add_adapter(LoraConfig(r=rank, lora_alpha=rank, bias="none", target_modules=TARGETS), _NAME)
    generator = torch.Generator().manual_seed(seed)
    for layer in _lora_layers(transformer).values():
        dtype = torch.promote_types(layer.weight.dtype, torch.float32)
        down, up = (matrices[_NAME].to(dtype).requires_grad_(True).weight for matrices in (layer.lora_A, layer.lora_B))
        with torch.no_grad():
            down.copy_(torch.randn(down.shape, generator=generator) / rank)
            up.zero_()


def trainable_parameters(transformer: nn.Module) -> list[nn.Parameter]:
    """The parameters that require gradients, in the module's order."""
    return [p for p in transformer.parameters() if p.requires_grad]


def named_parameters(transformer: nn.Module) -> dict[str, nn.Parameter]:
    """``trainable_parameters`` by name, in the same order."""
    return {name: p for name, p in transformer.named_parameters() if p.requires_grad}


@contextmanager
def reference_policy(transformer: nn.Module) -> Iterator[None]:
    """Within it the transformer is the base: the reference of a KL term. Restores ``requires_grad`` on leaving."""
    layers = _require_layers(transformer)
    flags = [(p, p.requires_grad) for layer in layers.values() for p in layer.parameters()]
    for layer in layers.values():
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers.values():
            layer.enable_adapters(True)
        for parameter, flag in flags:  # peft switches gradients off and on along with the adapter
            parameter.requires_grad_(flag)


def adapter_state(transformer: nn.Module) -> State:
    """The adapter's tensors by fused key (adapter_formats.py): not copies."""
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
    faults = {
        "missing": sorted(own.keys() - state.keys()),
        "surplus": sorted(state.keys() - own.keys()),
        "of another shape": sorted(k for k in own.keys() & state.keys() if own[k].shape != state[k].shape),
    }
    told = [f"{len(keys)} {fault} ({', '.join(keys[:3])})" for fault, keys in faults.items() if keys]
    if told:
        raise UserError(f"adapter doesn't fit the transformer: {'; '.join(told)}; is it of another base or rank?")
    for key, value in own.items():
        value.copy_(state[key])


def save_adapter(transformer: nn.Module, folder: str | Path, *, base: str) -> Path:
    """Write the adapter to ``folder``/pytorch_lora_weights.safetensors, atomically; returns the file.

    ``FluxPipeline.load_lora_weights(folder)`` reads it. ``base`` (a name or hash of the base
    checkpoint), rank and alpha go into the file's header.
    """
    state = adapter_state(transformer)
    rank = str(_rank(state))
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.cpu() for key, value in adapter_to_stock(state).items()}
    partial = folder / f".{FILE_NAME}.partial"
    save_file(tensors, partial, metadata={"format": "pt", "rank": rank, "alpha": rank, "base": base})
    os.replace(partial, folder / FILE_NAME)
    return folder / FILE_NAME


def read_adapter(path: str | Path) -> tuple[State, dict[str, str]]:
    """(tensors by fused key, header) of an adapter file of ours, of a stock pipeline, or of UNO.

    ``path`` is a safetensors file or a folder with pytorch_lora_weights.safetensors. Raises
    UserError if there is none, it can't be read, or its alpha differs from its rank.
    """
    path = Path(path)
    file = path / FILE_NAME if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"{file}: no such adapter; give a safetensors file or a folder with {FILE_NAME}")
    try:
        with safe_open(file, "pt") as opened:
            header = opened.metadata() or {}
            state = {key: opened.get_tensor(key).clone() for key in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file}: not a readable safetensors file ({error}); only safetensors are read") from error
    try:
        adapter = to_adapter(state)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    _refuse_scaled(file, header)
    return adapter, header


def load_adapter(transformer: FluxTransformer2DModel, path: str | Path) -> dict[str, str]:
    """Load an adapter file (see ``read_adapter``) into the transformer's adapter; returns the file's header.

    Where there is no adapter yet, one of the file's rank is added. Raises UserError if it doesn't fit.
    """
    state, header = read_adapter(path)
    if not _lora_layers(transformer):
        add_adapter(transformer, _rank(state), seed=0)
    try:
        set_adapter_state(transformer, state)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return header


def merged_state(transformer: nn.Module) -> State:
    """The weights of base + adapter under stock FluxTransformer2DModel keys, in the base's dtype.

    Those that the adapter doesn't touch share memory with the transformer.
    """
    layers = _require_layers(transformer)
    merged: State = {}
    for key, value in transformer.state_dict().items():
        if ".lora_A." in key or ".lora_B." in key:
            continue
        name = key.replace(".base_layer.", ".")
        layer = layers.get(name.removesuffix(".weight"))
        if layer is not None:
            delta = layer.lora_B[_NAME].weight.detach() @ layer.lora_A[_NAME].weight.detach()
            value = (value.float() + delta).to(value.dtype)
        merged.update({k: v.contiguous() for k, v in split_projection(name, value).items()})
    return merged


def _fuse(transformer: FluxTransformer2DModel) -> None:
    """Fuse q, k and v, and drop the separate ones, which the forward no longer reads: they'd double the memory."""
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


def _refuse_scaled(file: Path, header: Mapping[str, str]) -> None:
    """A stock file may carry peft's settings; a scale other than 1 would be lost in silence."""
    settings = json.loads(header.get("lora_adapter_metadata", "{}"))
    ranks, alphas = (
        {value for key, value in settings.items() if key.endswith(f".{name}") or key == name}
        for name in ("r", "lora_alpha")
    )
    if ranks != alphas:
        raise UserError(f"{file}: alpha {sorted(alphas)} differs from rank {sorted(ranks)}; scale B by alpha / rank")
