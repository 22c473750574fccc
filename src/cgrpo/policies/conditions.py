"""Conditions made of tensors, and classifier-free guidance between two of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Self, TypeVar

import torch
from torch import Tensor

from cgrpo.policies.settings import GuidanceGradient


@dataclass(frozen=True)
class TensorCondition:
    """A ``Condition`` whose fields are tensors of a row for each sample, but for those named in ``shared``.

    A field that is None stays so: a negative prompt that there isn't.
    """

    shared: ClassVar[frozenset[str]] = frozenset()

    def __len__(self) -> int:
        return len(next(iter(self._by_sample().values())))

    def repeat(self, times: int) -> Self:
        """Every task ``times`` times in a row: P tasks become N = P * times samples."""
        return self._rows(lambda t: t.repeat_interleave(times, dim=0))

    def select(self, index: slice | Sequence[int] | Tensor) -> Self:
        """The samples at ``index`` (slice, numbers or long tensor), in that order."""
        return self._rows(lambda t: t[index])

    def join(self, other: Self) -> Self:
        """The samples of both, ``other``'s behind; what is shared must be equal, and both have the same fields."""
        theirs = other._by_sample()
        return replace(self, **{name: torch.cat((own, theirs[name])) for name, own in self._by_sample().items()})

    def _by_sample(self) -> dict[str, Tensor]:
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in self.shared}
        return {name: value for name, value in values.items() if value is not None}

    def _rows(self, pick: Callable[[Tensor], Tensor]) -> Self:
        return replace(self, **{name: pick(value) for name, value in self._by_sample().items()})


@dataclass(frozen=True)
class ReferencedCondition(TensorCondition):
    """Text and references of a policy with reference tokens, encoded once per task.

    text_NLC       text states, [N, L_text, C_text]
    reference_NLC  packed latents of all references, one after another, [N, L_ref, C]; L_ref may be 0
    """

    text_NLC: Tensor
    reference_NLC: Tensor


@dataclass(frozen=True)
class PlacedCondition(ReferencedCondition):
    """With the position ids that FLUX's transformers take.

    ids_LD   of the target's tokens followed by the references', [L + L_ref, axes]; shared by the batch, so all
             samples of a batch have the same picture sizes
    """

    shared: ClassVar[frozenset[str]] = frozenset({"ids_LD"})

    ids_LD: Tensor


T = TypeVar("T", bound=TensorCondition)


def guided(
    forward: Callable[[Tensor, Tensor, T], Tensor],
    x_NLC: Tensor,
    sigma_N: Tensor,
    cond: T,
    negative: T,
    scale_N: Tensor,
    gradient: GuidanceGradient = "both",
    keep_length: bool = False,
    together: bool = True,
) -> Tensor:
    """v = v_negative + scale * (v_cond - v_negative), sample by sample; arXiv 2207.12598 with w = scale - 1.

    forward    the velocity at (x_NLC, sigma_N, condition)
    scale_N    1 gives v_cond
    gradient   "both": through both halves, which go through the model in one batch. "conditional": the negative half
               is a constant and is computed first, by itself: a backward costs and keeps no more than without guidance
    together   whether the halves can share a batch: their conditions can be joined
    keep_length   give every token of v the Euclidean length of v_cond's, as Qwen-Image's pipelines do

    The model sees the same batches with and without gradients, so rollout and replay agree.
    """
    if gradient == "conditional" or not together:
        with torch.set_grad_enabled(torch.is_grad_enabled() and gradient == "both"):
            away_NLC = forward(x_NLC, sigma_N, negative)
        toward_NLC = forward(x_NLC, sigma_N, cond)
    else:
        both = forward(torch.cat((x_NLC, x_NLC)), torch.cat((sigma_N, sigma_N)), cond.join(negative))
        toward_NLC, away_NLC = both.chunk(2)
    dtype = torch.promote_types(x_NLC.dtype, torch.float32)
    toward_NLC, away_NLC = toward_NLC.to(dtype), away_NLC.to(dtype)
    v_NLC = away_NLC + scale_N.to(dtype)[:, None, None] * (toward_NLC - away_NLC)
    if keep_length:
        v_NLC = v_NLC * (toward_NLC.norm(dim=-1, keepdim=True) / v_NLC.norm(dim=-1, keepdim=True))
    return v_NLC.to(x_NLC.dtype)
