"""Counting what models do and keep, on made-up tensors: no weights, no numbers, the libraries' own operations.

Models are built on the meta device and run as PyTorch's fake tensors, which go through every operation (attention,
autocast and checkpointing included) with shapes alone.
"""

from __future__ import annotations

import copy
import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from cgrpo.policies.settings import Checkpointing

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
        for name, child in module._modules.items():
            if child is None:  # a part that this configuration leaves out
                continue
            plain = {key: fake(value) for key, value in vars(child).items() if isinstance(value, Tensor)}
            if plain:  # a new module: it may have cached what it made of them
                module._modules[name] = copy.copy(child)
                vars(module._modules[name]).update(plain)
    # transformers checks values, which fake tensors have not.
    with meter, patch.dict(os.environ, TRANSFORMERS_DISABLE_TORCH_CHECK="1"):
        meter.restart()
        yield meter


@dataclass(frozen=True)
class Tokens:
    """Tokens of one sample."""

    target: int
    references: int
    text: int

    @property
    def all(self) -> int:
        return self.target + self.references + self.text


@dataclass(frozen=True)
class Operations:
    """Floating-point operations of one sample's forward and backward: matrix products, convolutions and attention.

    base      a forward without the adapter
    forward   with it
    backward  without what checkpointing computes again
    again     what checkpointing computes again, by its mode
    """

    base: int
    forward: int
    backward: int
    again: dict[Checkpointing, int]


@dataclass(frozen=True)
class Activations:
    """Bytes: what a forward keeps for its backward, and the most that is at work beyond that at any time."""

    kept: int
    at_work: int


@dataclass(frozen=True)
class Block:
    """Parameters of one block, and how many of them are the matrices of linear layers."""

    parameters: int
    matrices: int


@dataclass(frozen=True)
class Counted:
    """Operations of a call, and the bytes of the tensors that are alive at its peak."""

    operations: int
    at_work: int


def count_call(model: nn.Module, call: Callable[[], object]) -> Counted:
    """What ``call`` takes, which runs ``model`` on made-up tensors, without gradients."""
    model.eval().requires_grad_(False)
    with made_up(model) as meter, torch.no_grad():
        call()
    return Counted(meter.operations, meter.peak)


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
