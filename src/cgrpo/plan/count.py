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

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

_NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)


def parameters(model: nn.Module) -> int:
    """Parameters of ``model``, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


@contextmanager
def made_up(*models: nn.Module, like_autocast: bool = False) -> Iterator[None]:
    """Within it ``models`` have fake tensors on the CPU, and so has everything that is created.

    ``like_autocast``: normalisation computes in float32 on a copy of its own, as CUDA's autocast has it and the
    CPU's has not.
    """
    for module in {module: None for model in models for module in model.modules()} if like_autocast else ():
        if isinstance(module, _NORMS) and not module._forward_pre_hooks:
            module.float().register_forward_pre_hook(lambda _, given: (given[0].float(), *given[1:]))
    fakes: dict[int, Any] = {}  # by tensor, so that what is shared stays shared

    def fake(value: Tensor) -> Tensor:
        if id(value) not in fakes:
            made = torch.empty(value.shape, dtype=value.dtype, device="cpu")
            fakes[id(value)] = nn.Parameter(made, value.requires_grad) if isinstance(value, nn.Parameter) else made
        return fakes[id(value)]

    # transformers checks values, which fake tensors have not.
    with FakeTensorMode(), patch.dict(os.environ, TRANSFORMERS_DISABLE_TORCH_CHECK="1"):
        for module in (module for model in models for module in model.modules()):
            holders: list[Any] = [module._parameters, module._buffers]
            for tensors in holders:
                tensors.update({name: fake(value) for name, value in tensors.items() if value is not None})
        yield


def _attention(products: int) -> Callable[..., int]:
    def count(query: Any, key: Any, *rest: Any, **named: Any) -> int:
        samples, heads, rows, width = query
        return products * 2 * samples * heads * rows * key[2] * width

    return count


_RULES = {  # of the CPU's attention, which PyTorch counts on GPUs alone; the backward computes q k^T again
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention(2),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda gradient, *rest, **named: _attention(5)(
        *rest
    ),
}


class Counter:
    """Floating-point operations of matrix products, convolutions and attention: two per multiply-add."""

    def __enter__(self) -> Counter:
        self._counter = FlopCounterMode(display=False, custom_mapping=_RULES)
        self._counter.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._counter.__exit__(*error)

    @property
    def operations(self) -> int:
        return self._counter.get_total_flops()


@dataclass(frozen=True)
class Counted:
    """Operations of a call, and the bytes of the tensors that are alive at its peak."""

    operations: int
    at_work: int


def count_call(model: nn.Module, call: Callable[[], object]) -> Counted:
    """What ``call`` takes, which runs ``model`` on made-up tensors, without gradients."""
    model.eval().requires_grad_(False)
    with made_up(model), torch.no_grad(), Counter() as counter, Live() as live:
        call()
    return Counted(counter.operations, live.peak)


class Live(TorchDispatchMode):
    """Bytes of the tensors that operations under it created and that are still alive (``now``), and their ``peak``."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: dict[int, tuple[int, Any]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        results = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(results):
            if isinstance(tensor, Tensor):
                self._watch(tensor.untyped_storage(), given)
        return results

    def _watch(self, storage: torch.UntypedStorage, given: set[int]) -> None:
        identity = storage._cdata
        if identity in self._seen or identity in given:
            return
        self._seen[identity] = (storage.nbytes(), weakref.ref(storage, lambda _: self._gone(identity)))
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)

    def _gone(self, identity: int) -> None:
        self.now -= self._seen.pop(identity)[0]
