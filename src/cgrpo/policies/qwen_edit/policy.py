"""Qwen-Image-Edit with several references (2509, 2511): the stock diffusers transformer, its text encoder that sees the
references, and their latents as tokens behind the picture's.

Computes what diffusers' QwenImageEditPlusPipeline computes. Where this departs from it: both halves of the guidance go
through the transformer in one batch (conditions.py), prompts of unequal lengths share a batch under a mask, time
reaches its embedding in full precision whatever the model's dtype (``keep_exact_sigma``), and the text encoder places a
picture's tokens by row and column (inputs.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cgrpo.policies.conditions import ReferencedCondition, guided
from cgrpo.policies.encodings.text import PicturedPrompt
from cgrpo.policies.models import Model
from cgrpo.policies.pictured import PicturedPolicy
from cgrpo.policies.qwen_edit.checkpoint import (
    STOCK,
    check_fit,
    check_settings,
    check_tokenizer,
    qwen_models,
)
from cgrpo.policies.qwen_edit.family import FAMILY
from cgrpo.policies.qwen_edit.inputs import (
    PER_REFERENCE,
    QwenEditCodec,
    QwenEditGeometry,
    QwenEditPrompts,
    padded,
    pictured,
)
from cgrpo.policies.settings import PolicySettings
from cgrpo.types import Batch

NEGATIVE = " "  # of the model's page; the stock pipeline has no default

Size = tuple[int, int, int]  # frames (1), rows, columns of tokens


@dataclass(frozen=True)
class QwenEditCondition(ReferencedCondition):
    """Encoded once per task. Can be built from tensors alone (``QwenEditPolicy.condition``).

    text_NLC           Qwen2.5-VL's states of the prompt and the references, [N, L_text, C_text], zeros behind shorter
    mask_NL            True for tokens of the text
    sizes              of the target and of each reference; shared by the batch
    negative_NLC       the same as ``text_NLC`` of the negative prompt, with its mask; None without guidance
    scale_N            guidance scale of each sample, or None without guidance
    """

    shared: ClassVar[frozenset[str]] = frozenset({"sizes"})

    mask_NL: Tensor
    sizes: tuple[Size, ...]
    negative_NLC: Tensor | None = None
    negative_mask_NL: Tensor | None = None
    scale_N: Tensor | None = None

    def conditional(self) -> QwenEditCondition:
        """The same without guidance."""
        return replace(self, negative_NLC=None, negative_mask_NL=None, scale_N=None)

    def negative(self) -> QwenEditCondition:
        """The negative prompt in the prompt's place, without guidance."""
        assert self.negative_NLC is not None and self.negative_mask_NL is not None
        return replace(self.conditional(), text_NLC=self.negative_NLC, mask_NL=self.negative_mask_NL)


class QwenEditPolicy(PicturedPolicy[QwenEditCondition]):
    """A Qwen-Image transformer with its autoencoder and text encoder; see ``PicturedPolicy``.

    settings.guidance is the scale of classifier-free guidance while training, 1 or more; 1 is off, for half the cost.
    """

    family = FAMILY
    most_references = 3  # as the models' pages say
    also_encoded = (NEGATIVE,)
    text_per_reference = PER_REFERENCE
    codec_type = QwenEditCodec
    prompts_type = QwenEditPrompts
    stock = STOCK
    check_settings = staticmethod(check_settings)
    check_fit = staticmethod(check_fit)
    check_tokenizer = staticmethod(check_tokenizer)

    @classmethod
    def models(cls, settings: PolicySettings) -> dict[str, Model]:
        return qwen_models(settings)

    @classmethod
    def recognises(cls, transformer_class: str, path: str) -> bool:
        """By the class, or where that is not known by the path: nothing is fetched to plan a run."""
        unknown = not transformer_class and "qwen-image" in path.lower()
        return unknown or transformer_class == "QwenImageTransformer2DModel"

    @classmethod
    def read_texts(cls, settings: PolicySettings, batch: Batch) -> list[PicturedPrompt]:
        """Every prompt with its references, then the negative prompt with those of every task."""
        return pictured(batch.prompts, batch.references, NEGATIVE)

    def set_up(self) -> None:
        self.check_guidance()
        keep_exact_sigma(self.transformer)

    def lay_out(self, pixels: int, channels: int, grid: tuple[int, int]) -> QwenEditGeometry:
        return QwenEditGeometry(pixels, channels, grid)

    def condition(
        self,
        texts: Sequence[Tensor],
        reference_latents: Sequence[Tensor] = (),
        guidance: float | Tensor = 1.0,
        negatives: Sequence[Tensor] | None = None,
    ) -> QwenEditCondition:
        """Latents of references have even h and w."""
        length = max(len(text_LC) for text_LC in (*texts, *(negatives or ())))
        text_NLC, mask_NL = padded(texts, length)
        fields = {"text_NLC": text_NLC, "mask_NL": mask_NL, "reference_NLC": self.tokens(reference_latents, text_NLC)}
        if negatives is not None:
            fields["negative_NLC"], fields["negative_mask_NL"] = padded(negatives, length)
            fields["scale_N"] = torch.as_tensor(guidance, dtype=torch.float32).expand(len(texts))
        grids = [self.geometry.grid, *((latent.shape[-2] // 2, latent.shape[-1] // 2) for latent in reference_latents)]
        on_device = {name: value.to(self.device) for name, value in fields.items()}
        return QwenEditCondition(**on_device, sizes=tuple((1, *grid) for grid in grids))

    def velocity(self, x_NLC: Tensor, sigma_N: Tensor, cond: QwenEditCondition) -> Tensor:
        """The guided velocity (noise - data) at ``x_NLC``, sigma in [0, 1] fp32; in the dtype of ``x_NLC``.

        Guided, every token of it has the length that it has without guidance, as in the stock pipeline.
        """
        if cond.negative_NLC is None or cond.scale_N is None:
            return self.unguided(x_NLC, sigma_N, cond)
        halves, gradient = (cond.conditional(), cond.negative()), self.settings.guidance_gradient
        return guided(self.unguided, x_NLC, sigma_N, *halves, cond.scale_N, gradient, keep_length=True)

    def unguided(self, x_NLC: Tensor, sigma_N: Tensor, cond: QwenEditCondition) -> Tensor:
        """One forward of the transformer. A bfloat16 base computes under autocast."""
        tokens_NLC = torch.cat((x_NLC.to(self.dtype), cond.reference_NLC.to(self.dtype)), dim=1)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            (v_NLC,) = self.transformer(
                hidden_states=tokens_NLC,
                encoder_hidden_states=cond.text_NLC.to(self.dtype),
                encoder_hidden_states_mask=cond.mask_NL,
                timestep=sigma_N,
                img_shapes=[list(cond.sizes)] * len(cond),
                return_dict=False,
            )
        return v_NLC[:, : x_NLC.shape[1]].to(x_NLC.dtype)


def keep_exact_sigma(transformer: nn.Module) -> None:
    """Let sigma reach the time embedding as an fp32 number, whatever the model's dtype.

    The stock forward casts it to that of its first layer, which turns 0.986 into 0.984 under bfloat16. Where the
    references have a time of their own (zero_cond_t), it stays 0 for each. Installed twice, the hooks do the same.
    """
    passed: dict[str, Tensor] = {}

    def remember(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        passed["sigma"] = kwargs["timestep"].float()

    def replace_it(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        sigma_N = passed["sigma"]
        own_N = torch.zeros(len(args[0]) - len(sigma_N), dtype=sigma_N.dtype, device=sigma_N.device)
        return (torch.cat((sigma_N, own_N)), *args[1:])

    transformer.register_forward_pre_hook(remember, with_kwargs=True)
    transformer.get_submodule("time_text_embed").register_forward_pre_hook(replace_it)
