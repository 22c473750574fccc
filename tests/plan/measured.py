"""Tiny transformers with a LoRA, and what really happens in them: operations, saved and live tensors."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import Flux2Transformer2DModel, FluxTransformer2DModel
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from cgrpo.plan.flux2 import Flux2
from cgrpo.plan.transformer import Flux, Tokens
from cgrpo.policies.adapters.layers import add_adapter
from cgrpo.policies.adapters.layouts import FLUX, FLUX2

aten = torch.ops.aten


@dataclass(frozen=True)
class Case:
    """Sizes of a transformer, of its LoRA and of what goes through it."""

    flux: Flux | Flux2
    rank: int
    samples: int
    tokens: Tokens


def small(
    doubles: int, singles: int, heads: int, head_width: int, *, guidance: bool = True, channels: int = 12
) -> Flux:
    return Flux(doubles, singles, heads, head_width, channels, channels, 20, 28, guidance)


CASES = {
    "plain": Case(small(2, 3, 2, 16), 5, 3, Tokens(9, 2, 7)),
    "one-sample": Case(small(1, 2, 3, 12, guidance=False), 8, 1, Tokens(20, 10, 9)),
    "singles-alone": Case(small(0, 2, 2, 16), 4, 2, Tokens(9, 0, 5)),
    "wide": Case(small(2, 1, 4, 32, channels=24), 16, 2, Tokens(20, 20, 24)),
    "flux2": Case(Flux2(2, 3, 2, 16, 12, 12, 20), 5, 3, Tokens(9, 2, 7)),
    "flux2-one-sample": Case(Flux2(1, 2, 3, 16, 12, 12, 20), 8, 1, Tokens(20, 10, 9)),
    "flux2-singles-alone": Case(Flux2(0, 2, 2, 16, 12, 12, 20), 4, 2, Tokens(9, 0, 5)),
}

Model = FluxTransformer2DModel | Flux2Transformer2DModel


def transformer(flux: Flux | Flux2) -> Model:
    if isinstance(flux, Flux2):
        quarter = flux.head_width // 4
        return Flux2Transformer2DModel(
            in_channels=flux.in_channels,
            num_layers=flux.doubles,
            num_single_layers=flux.singles,
            attention_head_dim=flux.head_width,
            num_attention_heads=flux.heads,
            joint_attention_dim=flux.text_width,
            guidance_embeds=flux.guidance,
            axes_dims_rope=(quarter, quarter, quarter, flux.head_width - 3 * quarter),
        )
    half = (flux.head_width - 4) // 2
    return FluxTransformer2DModel(
        in_channels=flux.in_channels,
        num_layers=flux.doubles,
        num_single_layers=flux.singles,
        attention_head_dim=flux.head_width,
        num_attention_heads=flux.heads,
        joint_attention_dim=flux.text_width,
        pooled_projection_dim=flux.pooled_width,
        guidance_embeds=flux.guidance,
        axes_dims_rope=(4, half, half),
    )


def adapted(case: Case, dtype: torch.dtype = torch.float32) -> Model:
    torch.manual_seed(0)
    model = transformer(case.flux).to(dtype).requires_grad_(False).eval()
    add_adapter(model, case.rank, seed=0, layout=FLUX2 if isinstance(case.flux, Flux2) else FLUX)
    return model


def run(model: Model, case: Case, dtype: torch.dtype = torch.float32) -> Tensor:
    """One forward, a bfloat16 base under autocast."""
    n, flux, tokens = case.samples, case.flux, case.tokens
    own, axes = {}, 4
    if isinstance(flux, Flux):
        own, axes = {"pooled_projections": torch.randn(n, flux.pooled_width, dtype=dtype)}, 3
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        (out,) = model(
            hidden_states=torch.randn(n, tokens.image, flux.in_channels, dtype=dtype),
            encoder_hidden_states=torch.randn(n, tokens.text, flux.text_width, dtype=dtype),
            timestep=torch.rand(n),
            guidance=torch.ones(n) if flux.guidance else None,
            img_ids=torch.zeros(tokens.image, axes),
            txt_ids=torch.zeros(tokens.text, axes),
            return_dict=False,
            **own,
        )
    return out


def _attention(products: int) -> Any:
    def count(query: Sequence[int], key: Sequence[int], *rest: Any, **named: Any) -> int:
        samples, heads, rows, width = query
        return products * 2 * samples * heads * rows * key[2] * width

    return count


def _attention_backward(gradient: Any, query: Sequence[int], key: Sequence[int], *rest: Any, **named: Any) -> int:
    return _attention(5)(query, key)


def counter() -> FlopCounterMode:
    """PyTorch's counter, taught the CPU's attention with the rule it has for CUDA's."""
    rules = {
        aten._scaled_dot_product_flash_attention_for_cpu: _attention(2),
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    }
    return FlopCounterMode(display=False, custom_mapping=rules)


def saved_bytes(model: Model, case: Case, dtype: torch.dtype) -> int:
    """Of all tensors that a forward saves for its backward, each storage once, parameters left out.

    With checkpointing the rotary tables hide in a tuple from the hooks; they stay alive all the same. FLUX.2 makes them
    of two halves, which without checkpointing the hooks see joined.
    """
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    found: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            found.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    def rotary(module: nn.Module, args: Any, tables: tuple[Tensor, ...]) -> None:
        for table in tables:
            keep(table)

    hidden = isinstance(model, FluxTransformer2DModel) or model.gradient_checkpointing
    handle = model.pos_embed.register_forward_hook(rotary) if hidden else None
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        run(model, case, dtype)
    if handle:
        handle.remove()
    return sum(tensor.untyped_storage().nbytes() for tensor in found.values())


class Live(TorchDispatchMode):
    """Bytes of the storages that operations under it made and that are still alive, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: dict[int, tuple[int, Any]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._watch(tensor.untyped_storage(), given)
        return made

    def _watch(self, storage: torch.UntypedStorage, given: set[int]) -> None:
        key = storage._cdata
        if key in self._seen or key in given:
            return
        self._seen[key] = (storage.nbytes(), weakref.ref(storage, lambda _: self._gone(key)))
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)

    def _gone(self, key: int) -> None:
        self.now -= self._seen.pop(key)[0]
