"""What FLUX is conditioned on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from cgrpo.policies.conditions import TensorCondition


@dataclass(frozen=True)
class FluxCondition(TensorCondition):
    """Encoded once per task. Can be built from tensors alone (``FluxPolicy.condition``).

    text_NLC       text tokens (T5), [N, L_text, C_text]
    pooled_NC      pooled text (CLIP), [N, C_pooled]
    reference_NLC  packed latents of all references, one after another, [N, L_ref, C]; L_ref may be 0
    ids_LD         position ids of the target's tokens followed by the references', [L + L_ref, 3];
                   shared by the batch, so all samples of a batch have the same picture sizes
    guidance_N     distilled guidance scale (FLUX.1-dev: 3.5 training, 4.0 inference)
    """

    shared: ClassVar[frozenset[str]] = frozenset({"ids_LD"})

    text_NLC: Tensor
    pooled_NC: Tensor
    reference_NLC: Tensor
    ids_LD: Tensor
    guidance_N: Tensor
