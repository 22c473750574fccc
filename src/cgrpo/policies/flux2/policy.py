"""Reference-conditioned FLUX.2-klein: the stock diffusers transformer, reference tokens beside the target's.

Computes what diffusers' Flux2KleinPipeline computes, base models of 4B and 9B through the same lines. Where this
departs from it: both halves of the guidance go through the transformer in one batch (conditions.py), time reaches its
embedding in full precision whatever the model's dtype (``keep_exact_time``), and Qwen3 ends where its states are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from cgrpo.policies.conditions import PlacedCondition, guided
from cgrpo.policies.encodings.latents import LatentCodec, pack, unpack
from cgrpo.policies.flux2.checkpoint import (
    STOCK,
    TEXT_ENCODERS,
    check_fit,
    check_settings,
    check_template,
    flux2_models,
    read_qwen,
)
from cgrpo.policies.flux2.family import FAMILY
from cgrpo.policies.flux2.inputs import Flux2Geometry, Flux2Prompts, windows
from cgrpo.policies.lora import keep_exact_time
from cgrpo.policies.models import Model
from cgrpo.policies.referenced import ReferencedPolicy
from cgrpo.policies.settings import PolicySettings
from cgrpo.types import Batch

NEGATIVE = ""  # the stock pipeline's only negative prompt


@dataclass(frozen=True)
class Flux2Condition(PlacedCondition):
    """Encoded once per task. Can be built from tensors alone (``Flux2Policy.condition``).

    text_NLC       three layers of Qwen3 side by side, [N, L_text, 3 C_text]
    negative_LC    text states of the negative prompt, the same for all samples; None without guidance
    scale_N        guidance scale of each sample, or None without guidance
    """

    shared: ClassVar[frozenset[str]] = frozenset({"ids_LD", "negative_LC"})

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


class Flux2Codec(LatentCodec):
    """A frozen AutoencoderKLFlux2: each of a token's channels is normalised by the statistics of a batch norm.

    Pixels and levels are rounded as the stock pipeline rounds them.
    """

    def scaled(self, raw_NCHW: Tensor) -> Tensor:
        """(token - mean) / std, channel by channel of the token."""
        size = (raw_NCHW.shape[-2] // 2, raw_NCHW.shape[-1] // 2)
        mean_C, std_C = self._statistics()
        return unpack((pack(raw_NCHW) - mean_C) / std_C, *size)

    def raw(self, scaled_NCHW: Tensor) -> Tensor:
        size = (scaled_NCHW.shape[-2] // 2, scaled_NCHW.shape[-1] // 2)
        mean_C, std_C = self._statistics()
        return unpack(pack(scaled_NCHW) * std_C + mean_C, *size)

    def pixels(self, levels_NCHW: Tensor) -> Tensor:
        return 2 * (levels_NCHW / 255) - 1

    def levels(self, pixels_NCHW: Tensor) -> Tensor:
        return ((pixels_NCHW * 0.5 + 0.5).clamp(0, 1) * 255).round()

    def _statistics(self) -> tuple[Tensor, Tensor]:
        norm = self.vae.bn
        return norm.running_mean, (norm.running_var + self.vae.config["batch_norm_eps"]).sqrt()  # pyright: ignore


class Flux2Policy(ReferencedPolicy[Flux2Condition]):
    """A FLUX.2-klein transformer with its autoencoder and text encoder; see ``ReferencedPolicy``.

    settings.guidance is the scale of classifier-free guidance while training, 1 or more; 1 is off, for half the cost.
    """

    family = FAMILY
    most_references = 10  # FLUX.2's announcement names as many; the stock code has no limit
    also_encoded = (NEGATIVE,)
    codec_type = Flux2Codec
    prompts_type = Flux2Prompts
    stock = STOCK
    text_encoders = TEXT_ENCODERS
    check_settings = staticmethod(check_settings)
    check_fit = staticmethod(check_fit)
    check_tokenizer = staticmethod(check_template)
    windows = staticmethod(windows)  # pyright: ignore[reportAssignmentType] - as many as text_encoders has

    @classmethod
    def models(cls, settings: PolicySettings) -> dict[str, Model]:
        return flux2_models(settings)

    @classmethod
    def read_model(cls, settings: PolicySettings, part: str, dtype: torch.dtype | None) -> Any:
        if part == "qwen":
            return read_qwen(cls.place(settings, part), dtype)
        return super().read_model(settings, part, dtype)

    def set_up(self) -> None:
        self.check_guidance()
        precision = torch.promote_types(self.dtype, torch.float32)
        keep_exact_time(self.transformer, self.transformer.time_guidance_embed, precision)

    @classmethod
    def recognises(cls, transformer_class: str, path: str) -> bool:
        """By the class, or where that is not known by the path: nothing is fetched to plan a run."""
        return transformer_class == "Flux2Transformer2DModel" or (not transformer_class and "flux.2" in path.lower())

    def lay_out(self, pixels: int, channels: int, grid: tuple[int, int]) -> Flux2Geometry:
        return Flux2Geometry(pixels, channels, grid)

    def conditions(self, batch: Batch, parts: Sequence[Sequence[int]], guidance: float) -> list[Flux2Condition]:
        text_NLC, _ = self.texts([*batch.prompts, *([NEGATIVE] if guidance != 1 else [])])
        latents = self.reference_latents(batch, parts)
        negative_LC = text_NLC[len(batch)] if guidance != 1 else None
        return [
            self.condition(text_NLC[list(rows)], latent, guidance, negative_LC)
            for rows, latent in zip(parts, latents, strict=True)
        ]

    def condition(
        self,
        text_NLC: Tensor,
        reference_latents: Sequence[Tensor] = (),
        guidance: float | Tensor = 1.0,
        negative_LC: Tensor | None = None,
    ) -> Flux2Condition:
        """A condition from tensors alone.

        ``reference_latents``: for each reference the scaled latents [N, c, h, w] of all samples, as
        ``Flux2Codec.encode`` gives them (h and w even). ``guidance``: one number or one per sample; without effect
        where there are no text states of the negative prompt, ``negative_LC``.
        """
        scale_N = torch.as_tensor(guidance, dtype=torch.float32).expand(len(text_NLC)).to(self.device)
        return Flux2Condition(
            **self.placed(text_NLC, reference_latents),
            negative_LC=None if negative_LC is None else negative_LC.to(self.device),
            scale_N=None if negative_LC is None else scale_N,
        )

    def velocity(self, x_NLC: Tensor, sigma_N: Tensor, cond: Flux2Condition) -> Tensor:
        """The guided velocity (noise - data) at ``x_NLC``, sigma in [0, 1] fp32; in the dtype of ``x_NLC``."""
        if cond.negative_LC is None or cond.scale_N is None:
            return self.forward(x_NLC, sigma_N, cond)
        halves = cond.conditional(), cond.negative()
        return guided(self.forward, x_NLC, sigma_N, *halves, cond.scale_N, self.settings.guidance_gradient)
