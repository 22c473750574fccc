"""Adapters laid over a transformer for a while: of any ranks, on any of its linear layers, at any strength.

Nothing of the base is changed or copied, so that a hundred adapters can follow each other on one base. ``load_adapter``
is for adapters that are trained further: it wants every layer of the family's layout, and one A for q, k and v.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cgrpo.policies.adapters.keys import FUSED, Pair, pairs

_PARTS = {part: (fused, place) for fused, parts in FUSED.items() for place, part in enumerate(parts)}


@dataclass(frozen=True)
class Fit:
    """Which of an adapter's layers the transformer has, by ``read_split`` name; ``misfits``: those that it hasn't."""

    layers: tuple[str, ...]
    misfits: tuple[str, ...]


def fit(transformer: nn.Module, split: Mapping[str, Tensor]) -> Fit:
    """Whether each layer of an adapter is in ``transformer``, with as many inputs and rows."""
    fits = {name: _site(transformer, name, pair) is not None for name, pair in pairs(split).items()}
    return Fit(tuple(name for name, good in fits.items() if good), tuple(name for name in fits if not fits[name]))


@contextmanager
def attached(
    transformer: nn.Module, split: Mapping[str, Tensor], strength: float = 1.0, *, alone: bool = True
) -> Iterator[None]:
    """Within it the transformer is its base, with a merged start, and ``strength`` times the adapter ``split``.

    Layers that do not fit (``fit``) add nothing. ``alone``: other adapters are off. Without gradients.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    others = [module for module in transformer.modules() if isinstance(module, BaseTunerLayer)]
    switched = [layer for layer in others if alone and not layer.disable_adapters]
    by_site: dict[nn.Module, list[Callable[[Tensor, Tensor], Tensor]]] = {}
    for name, pair in pairs(split).items():
        site = _site(transformer, name, pair)
        if site is not None:
            module, first = site
            by_site.setdefault(module, []).append(_addition(pair, first, strength, module))
    hooks = [module.register_forward_hook(_hook(additions)) for module, additions in by_site.items()]
    try:
        for layer in switched:
            layer.enable_adapters(False)
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for layer in switched:
            layer.enable_adapters(True)


def _site(transformer: nn.Module, name: str, pair: Pair) -> tuple[nn.Module, int] | None:
    """The linear layer that is ``name``, or holds it, and the first of its rows there; None where nothing fits."""
    path, _, leaf = name.rpartition(".")
    fused, place = _PARTS.get(leaf, ("", 0))
    for module_name, share in ((name, 1), (f"{path}.{fused}", 3) if fused else (name, 1)):
        try:
            module: Any = transformer.get_submodule(module_name)
        except AttributeError:
            continue
        down, up = pair
        shape = (getattr(module, "in_features", 0), getattr(module, "out_features", 0))
        if shape == (down.shape[1], up.shape[0] * share):
            return module, place * up.shape[0] if share > 1 else 0
    return None


def _addition(pair: Pair, first: int, strength: float, module: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """What adds B A x, in fp32 at least, to the rows from ``first`` on of a layer's output."""
    weight = module.weight
    down, up = (matrix.to(weight.device, torch.promote_types(matrix.dtype, torch.float32)) for matrix in pair)
    up = up * strength

    def add(x: Tensor, y: Tensor) -> Tensor:
        more = nn.functional.linear(nn.functional.linear(x.to(down.dtype), down), up)
        y[..., first : first + up.shape[0]] += more.to(y.dtype)
        return y

    return add


def _hook(
    additions: list[Callable[[Tensor, Tensor], Tensor]],
) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    @torch.no_grad()
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        output = output.clone()
        for add in additions:
            output = add(inputs[0], output)
        return output

    return hook
