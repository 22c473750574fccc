"""Counting what models do and keep, on made-up tensors: no weights, no numbers, the libraries' own operations.

Models are built on the meta device and run as PyTorch's fake tensors, which go through every operation (attention,
autocast and checkpointing included) with shapes alone.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten
from torch.utils.flop_counter import flop_registry

_NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)


def parameters(model: nn.Module) -> int:
    """Parameters of ``model``, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def _attention(products: int) -> Callable[..., int]:
    def count(query: Tensor, key: Tensor, *rest: object) -> int:
        samples, heads, rows, width = query.shape
        return products * 2 * samples * heads * rows * key.shape[2] * width

    return count


def _attention_backward(gradient: Tensor, query: Tensor, key: Tensor, *rest: object) -> int:
    return _attention(5)(query, key)  # it computes q k^T again


_ATTENTION: dict[Any, Callable[..., int]] = {  # the CPU's, which PyTorch counts on GPUs alone
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention(2),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


class Meter(FakeTensorMode):
    """Within it tensors have shapes and no numbers, and are counted.

    operations  floating-point operations of matrix products, convolutions and attention: two per multiply-add
    now, peak   bytes of the tensors that were created within it: those alive, and the most of them at any time
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.now = self.peak = 0
        self._alive: dict[int, tuple[int, Any]] = {}
        self._inner = False

    def dispatch(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default:
            return super().dispatch(func, types, args, kwargs)
        kwargs = kwargs or {}
        inner, self._inner, before = self._inner, True, self.operations
        try:
            results = super().dispatch(func, types, args, kwargs)
        finally:
            self._inner = inner
        kind = func._overloadpacket
        if kind in _ATTENTION:  # before: what an operation is made of counts once
            self.operations = before + _ATTENTION[kind](*args)
        elif kind in flop_registry:
            self.operations = before + flop_registry[kind](*args, **kwargs, out_val=results)
        if not inner:
            self._watch(results, args, kwargs)
        return results

    def restart(self) -> None:
        """Count from zero; what is alive belongs to no count."""
        self.operations = self.now = self.peak = 0
        self._alive.clear()

    def _watch(self, results: Any, args: Any, kwargs: Any) -> None:
        """Tensors among ``results`` that are neither known nor parts of what was given."""
        new = {_memory(x): x.untyped_storage() for x in _tensors(results)}
        given = {_memory(x) for x in _tensors((args, kwargs))}
        for identity, storage in new.items():
            if identity not in self._alive and identity not in given:
                gone = weakref.ref(storage, lambda _, identity=identity: self._gone(identity))
                self._alive[identity] = storage.nbytes(), gone
                self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)

    def _gone(self, identity: int) -> None:
        self.now -= self._alive.pop(identity)[0]


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


@contextmanager
def made_up(*models: nn.Module, like_autocast: bool = False) -> Iterator[Meter]:
    """Within it ``models`` have fake tensors on the CPU, and so has everything that is created.

    ``like_autocast``: normalisation computes in float32 on a copy of its own, as CUDA's autocast has it and the
    CPU's has not.
    """
    for module in {module: None for model in models for module in model.modules()} if like_autocast else ():
        if isinstance(module, _NORMS) and not module._forward_pre_hooks:
            module.float().register_forward_pre_hook(lambda _, given: (given[0].float(), *given[1:]))
    meter, cpu = Meter(), torch.device("cpu")
    fakes: dict[int, Any] = {}  # by tensor, so that what is shared stays shared

    def fake(value: Tensor) -> Tensor:
        if id(value) not in fakes:
            blank = FakeTensor(meter, torch.empty(value.shape, dtype=value.dtype, device="meta"), cpu)
            fakes[id(value)] = blank.requires_grad_(value.requires_grad)
        return fakes[id(value)]

    for module in (module for model in models for module in model.modules()):
        holders: list[Any] = [module._parameters, module._buffers]
        for tensors in holders:
            tensors.update({name: fake(value) for name, value in tensors.items() if value is not None})
    # transformers checks values, which fake tensors have not.
    with meter, patch.dict(os.environ, TRANSFORMERS_DISABLE_TORCH_CHECK="1"):
        meter.restart()
        yield meter


@dataclass(frozen=True)
class Counted:
    """Operations of a call, and the bytes of the tensors that are alive at its peak."""

    operations: int
    at_work: int


def count_call(model: nn.Module, call: Callable[[], object]) -> Counted:
    """What ``call`` takes, which runs ``model`` on made-up tensors, without gradients."""
    model.eval().requires_grad_(False)
    with made_up(model) as meter, torch.no_grad(), equal_blocks_once(model, meter):
        call()
    return Counted(meter.operations, meter.peak)


@contextmanager
def equal_blocks_once(model: nn.Module, meter: Meter) -> Iterator[None]:
    """Within it, without gradients, equal blocks of a list are run once for inputs of one kind, then counted again.

    Blocks are equal where their parameters' shapes and all their modules' plain settings are.
    """
    calls: dict[Any, Any] = {}
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) > 1]
    blocks = {block: block.forward for blocks in lists for block in blocks}
    for block, forward in blocks.items():
        block.forward = _once(forward, _layout(block), calls, meter)
    yield
    for block in blocks:
        del block.forward


def _layout(block: nn.Module) -> tuple[Any, ...]:
    tensors = [(name, x.shape, x.dtype) for name, x in (*block.named_parameters(), *block.named_buffers())]
    plain = [
        (name, type(module), key, value)
        for name, module in block.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, int | float | str | tuple) and key != "layer_idx"
    ]
    return type(block), *tensors, *plain


def _once(forward: Callable[..., Any], layout: Any, calls: dict[Any, Any], meter: Meter) -> Callable[..., Any]:
    """``forward``, run for the first inputs of a kind alone."""

    def run(*args: Any, **kwargs: Any) -> Any:
        inputs, structure = tree_flatten((args, kwargs))
        kind = layout, structure, *map(_kind, inputs)
        if kind in calls:
            operations, at_work, again = calls[kind]
            meter.operations += operations
            meter.peak = max(meter.peak, meter.now + at_work)
            return again(inputs)
        operations, now, peak = meter.operations, meter.now, meter.peak
        meter.peak = now
        results = forward(*args, **kwargs)
        calls[kind] = meter.operations - operations, meter.peak - now, _again(results, inputs)
        meter.peak = max(peak, meter.peak)
        return results

    return run


def _kind(value: Any) -> Any:
    """What an input has in common with others that cost as much; an object of unknown state is like no other."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype
    if isinstance(value, np.ndarray):
        return tuple(value.flat)
    return value if value is None or isinstance(value, int | float | str | torch.dtype) else object()


def _again(results: Any, inputs: list[Any]) -> Callable[[list[Any]], Any]:
    """How to make results like these of other inputs: views of their memory and of as much new memory."""
    leaves, structure = tree_flatten(results)
    places = {_memory(given): place for place, given in enumerate(inputs) if isinstance(given, Tensor)}
    new: list[tuple[int, torch.dtype]] = []
    views: list[tuple[int, Any, Any, Any] | None] = []
    for leaf in leaves:
        if not isinstance(leaf, Tensor):
            views.append(None)
            continue
        if _memory(leaf) not in places:
            places[_memory(leaf)] = len(inputs) + len(new)
            new.append((leaf.untyped_storage().nbytes() // leaf.itemsize, leaf.dtype))
        views.append((places[_memory(leaf)], leaf.shape, leaf.stride(), leaf.storage_offset()))
    plain = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]

    def make(inputs: list[Any]) -> Any:
        sources = [*inputs, *(torch.empty(size, dtype=dtype) for size, dtype in new)]
        made = (
            value if view is None else sources[view[0]].as_strided(*view[1:])
            for view, value in zip(views, plain, strict=True)
        )
        return tree_unflatten(list(made), structure)

    return make


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
