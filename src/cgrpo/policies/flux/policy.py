"""Reference-conditioned FLUX (UNO, Kontext): the stock diffusers transformer, reference tokens beside the target's.

FLUX.1-dev, FLUX.1 Kontext and the toy world's checkpoint load through the same lines; only sizes and
the position scheme differ. Where this departs from UNO's code: references are encoded by the
posterior's mean or by a draw that the picture seeds (latents.py), and time and guidance reach their
embeddings in full precision whatever the model's dtype (``keep_exact_time``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cgrpo.errors import UserError
from cgrpo.policies.adapters.files import FILE_NAME
from cgrpo.policies.adapters.layers import merge_start
from cgrpo.policies.checkpoints import load_together
from cgrpo.policies.conditions import PlacedCondition
from cgrpo.policies.flux.checkpoint import (
    STOCK,
    TEXT_ENCODERS,
    check_fit,
    check_settings,
    refuse_unscaled,
    save_pipeline,
)
from cgrpo.policies.flux.family import FAMILY
from cgrpo.policies.flux.inputs import FluxGeometry, FluxPrompts, windows
from cgrpo.policies.flux.single_file import read_autoencoder, read_transformer
from cgrpo.policies.lora import keep_exact_time
from cgrpo.policies.referenced import ReferencedPolicy
from cgrpo.policies.settings import PolicySettings
from cgrpo.section import TOYBOX_POLICIES
from cgrpo.types import Batch


@dataclass(frozen=True)
class FluxCondition(PlacedCondition):
    """Encoded once per task. Can be built from tensors alone (``FluxPolicy.condition``).

    text_NLC       text tokens (T5), [N, L_text, C_text]
    pooled_NC      pooled text (CLIP), [N, C_pooled]
    guidance_N     distilled guidance scale (FLUX.1-dev: 3.5 training, 4.0 inference)
    """

    pooled_NC: Tensor
    guidance_N: Tensor


class FluxPolicy(ReferencedPolicy[FluxCondition]):
    """A FLUX transformer with its autoencoder and text encoders; see ``ReferencedPolicy`` for what it is made of.

    settings.guidance is distilled guidance, without effect where the transformer has no guidance embedding.
    """

    family = FAMILY
    prompts_type = FluxPrompts
    stock = STOCK
    published = "FLUX.1-dev"
    text_encoders = TEXT_ENCODERS
    check_settings = staticmethod(check_settings)
    check_fit = staticmethod(check_fit)
    windows = staticmethod(windows)  # pyright: ignore[reportAssignmentType] - as many as text_encoders has

    @classmethod
    def read_model(cls, settings: PolicySettings, part: str, dtype: torch.dtype | None) -> Any:
        place = cls.place(settings, part)
        if place.is_file():
            return (read_transformer if part == "transformer" else read_autoencoder)(place, dtype)
        if part == "transformer" and settings.path in TOYBOX_POLICIES and (place / FILE_NAME).is_file():
            model = cls.stock[part].read(place.with_name("transformer"), dtype)  # that world is a LoRA of this one
            merge_start(model, place, cls.layout())
            return model
        model = super().read_model(settings, part, dtype)
        if part == "autoencoder":
            refuse_unscaled(place)
        return model

    def set_up(self) -> None:
        self._takes_guidance: bool = self.transformer.config["guidance_embeds"]
        if self.settings.evaluation_guidance and not self._takes_guidance:
            scale = self.settings.evaluation_guidance
            raise UserError(f"policy.evaluation_guidance = {scale:g}: this transformer takes none; leave it out")
        keep_exact_time(self.transformer, self.transformer.time_text_embed)

    @classmethod
    def recognises(cls, transformer_class: str, path: str) -> bool:
        """By the class; a single file or a path that is only a name is FLUX.1 where no other family knows it."""
        return transformer_class in ("", "FluxTransformer2DModel")

    def lay_out(self, pixels: int, channels: int, grid: tuple[int, int]) -> FluxGeometry:
        return FluxGeometry(pixels, channels, grid, self.settings.position_ids)

    @classmethod
    def save_whole(cls, settings: PolicySettings, transformer: Any, folder: Path) -> None:
        if settings.path.endswith(".safetensors") or settings.autoencoder or settings.clip or settings.t5:
            parts = load_together({k: load for k, load in cls.loaders(settings, None).items() if k != "transformer"})
            save_pipeline(settings, transformer, parts, folder)
        else:
            super().save_whole(settings, transformer, folder)

    def conditions(self, batch: Batch, parts: Sequence[Sequence[int]], guidance: float) -> list[FluxCondition]:
        text_NLC, pooled_NC = self.texts(batch.prompts)
        latents = self.reference_latents(batch, parts)
        return [
            self.condition(text_NLC[list(rows)], pooled_NC[list(rows)], latent, guidance)
            for rows, latent in zip(parts, latents, strict=True)
        ]

    def condition(
        self,
        text_NLC: Tensor,
        pooled_NC: Tensor,
        reference_latents: Sequence[Tensor] = (),
        guidance: float | Tensor | None = None,
    ) -> FluxCondition:
        """A condition from tensors alone.

        ``reference_latents``: for each reference the scaled latents [N, c, h, w] of all samples,
        as ``LatentCodec.encode`` gives them (h and w even). ``guidance``: one number or one per
        sample; None means ``settings.guidance``.
        """
        scale = self.settings.guidance if guidance is None else guidance
        guidance_N = torch.as_tensor(scale, dtype=torch.float32).expand(len(text_NLC))
        return FluxCondition(
            **self.placed(text_NLC, reference_latents),
            pooled_NC=pooled_NC.to(self.device),
            guidance_N=guidance_N.to(self.device),
        )

    def velocity(self, x_NLC: Tensor, sigma_N: Tensor, cond: FluxCondition) -> Tensor:
        """The model's velocity (noise - data) at ``x_NLC``, sigma in [0, 1] fp32; in the dtype of ``x_NLC``.

        Guidance reaches the model as 1000 * guidance in fp32, where the paper's release rounds 3500 to 3504 through
        bf16.
        """
        guidance_N = cond.guidance_N if self._takes_guidance else None
        return self.forward(x_NLC, sigma_N, cond, pooled_projections=cond.pooled_NC.to(self.dtype), guidance=guidance_N)

    def pictures_depend_on(self) -> dict[str, Any]:
        return super().pictures_depend_on() | {"position_ids": self.settings.position_ids}
