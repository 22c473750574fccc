"""What FLUX.2-klein is conditioned on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from cgrpo.policies.conditions import TensorCondition


@dataclass(frozen=True)
class Flux2Condition(TensorCondition):
    """Encoded once per task. Can be built from tensors alone (``Flux2Policy.condition``).

    text_NLC       text states (three layers of Qwen3 side by side), [N, L_text, 3 C_text]
    reference_NLC  packed latents of all references, one after another, [N, L_ref, C]; L_ref may be 0
    ids_LD         position ids of the target's tokens followed by the references', [L + L_ref, 4];
                   shared by the batch, so all samples of a batch have the same picture sizes
    negative_LC    text states of the negative prompt, the same for all samples; None without guidance
    scale_N        guidance scale of each sample, or None without guidance
    """

    shared: ClassVar[frozenset[str]] = frozenset({"ids_LD", "negative_LC"})

    text_NLC: Tensor
    reference_NLC: Tensor
    ids_LD: Tensor
    negative_LC: Tensor | None = None
    scale_N: Tensor | None = None

    def conditional(self) -> Flux2Condition:
        """The same without guidance."""
        return replace(self, negative_LC=None, scale_N=None)

    def negative(self) -> Flux2Condition:
        """The negative prompt in the prompt's place, without guidance."""
        assert self.negative_LC is not None
        text_NLC = self.negative_LC.expand(len(self), -1, -1)
        return replace(self, text_NLC=text_NLC, negative_LC=None, scale_N=None)
