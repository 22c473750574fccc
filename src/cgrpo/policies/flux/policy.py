"""Reference-conditioned FLUX (UNO, Kontext): the stock diffusers transformer, reference tokens beside the target's.

FLUX.1-dev, FLUX.1 Kontext and the toy world's checkpoint load through the same lines; only sizes and
the position scheme differ. Where this departs from UNO's code: references are encoded by the
posterior's mean or by a draw that the picture seeds (latents.py), and time and guidance reach their
embeddings in full precision whatever the model's dtype (``keep_exact_time``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from cgrpo.algorithm import shifted_sigmas
from cgrpo.errors import UserError
from cgrpo.policies.adapters.layouts import FLUX, Layout
from cgrpo.policies.checkpoints import read_tokenizer
from cgrpo.policies.conditions import ReferencedCondition
from cgrpo.policies.encodings.latents import LatentCodec
from cgrpo.policies.encodings.store import EncodingStore, StoredPrompts
from cgrpo.policies.encodings.text import Prompts
from cgrpo.policies.fingerprint import part_fingerprint, tokenizer_fingerprint, tokenizer_length
from cgrpo.policies.flux.checkpoint import TEXT_PARTS, flux_models, load_parts, load_transformer, places, save_pipeline
from cgrpo.policies.flux.geometry import FluxGeometry
from cgrpo.policies.flux.text import CLIP_LENGTH, T5_LENGTH, PromptEncoder, windows
from cgrpo.policies.lora import keep_exact_time
from cgrpo.policies.models import Model
from cgrpo.policies.referenced import DTYPES, ReferencedPolicy
from cgrpo.policies.settings import PolicySettings
from cgrpo.types import Batch


@dataclass(frozen=True)
class FluxCondition(ReferencedCondition):
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

    layout: ClassVar[Layout] = FLUX

    def __init__(
        self,
        transformer: Any,
        codec: LatentCodec | None,
        prompts: Prompts | None,
        settings: PolicySettings,
        device: str | torch.device | None = None,
    ) -> None:
        super().__init__(transformer, codec, prompts, settings, device)
        self._takes_guidance: bool = transformer.config["guidance_embeds"]
        if settings.evaluation_guidance and not self._takes_guidance:
            scale = settings.evaluation_guidance
            raise UserError(f"policy.evaluation_guidance = {scale:g}: this transformer takes none; leave it out")
        keep_exact_time(transformer, transformer.time_text_embed)

    @classmethod
    def recognises(cls, transformer_class: str, path: str) -> bool:
        """By the class; a single file or a path that is only a name is taken for FLUX.1 unless it says FLUX.2."""
        unknown = not transformer_class and "flux.2" not in path.lower()
        return unknown or transformer_class == "FluxTransformer2DModel"

    def lay_out(self, pixels: int, channels: int, grid: tuple[int, int]) -> FluxGeometry:
        return FluxGeometry(pixels, channels, grid, self.settings.position_ids)

    @classmethod
    def load(
        cls,
        settings: PolicySettings,
        device: torch.device,
        beside: torch.device,
        store: EncodingStore | None = None,
        *,
        transformer: bool = True,
    ) -> tuple[Any, LatentCodec, Prompts]:
        dtype = DTYPES[settings.dtype]
        parts = load_parts(settings, dtype, device, beside, transformer=transformer, texts=store is None)
        codec = LatentCodec(parts["autoencoder"], settings.reference_latents, store)
        if store is not None:
            return parts.get("transformer"), codec, StoredPrompts(store, device)
        return parts.get("transformer"), codec, PromptEncoder(*(parts[name] for name in TEXT_PARTS))

    @classmethod
    def load_transformer(cls, settings: PolicySettings, dtype: torch.dtype) -> Any:
        return load_transformer(settings, dtype)

    @classmethod
    def save_whole(cls, settings: PolicySettings, transformer: Any, folder: Path) -> None:
        if settings.path.endswith(".safetensors") or settings.autoencoder or settings.clip or settings.t5:
            save_pipeline(settings, transformer, folder)
        else:
            super().save_whole(settings, transformer, folder)

    @classmethod
    def encodings_depend_on(cls, settings: PolicySettings) -> dict[str, Any]:
        clip, t5 = places(settings, "clip_tokenizer"), places(settings, "t5_tokenizer")
        return {
            "clip": part_fingerprint(places(settings, "clip")),
            "clip_tokenizer": tokenizer_fingerprint(clip),
            "clip_length": tokenizer_length(clip, CLIP_LENGTH),
            "t5": part_fingerprint(places(settings, "t5")),
            "t5_tokenizer": tokenizer_fingerprint(t5),
            "t5_length": tokenizer_length(t5, T5_LENGTH),
            "autoencoder": part_fingerprint(places(settings, "autoencoder")),
        }

    @classmethod
    def make_cut(cls, settings: PolicySettings) -> Callable[[Sequence[str]], dict[str, list[int]]]:
        clip, t5 = (read_tokenizer(places(settings, f"{name}_tokenizer")) for name in ("clip", "t5"))
        both = windows(clip, t5)
        return lambda prompts: {name: cut for window in both for name, cut in window.cut(prompts).items()}

    @classmethod
    def models(cls, settings: PolicySettings) -> dict[str, Model]:
        return flux_models(settings)

    def sigmas(self, steps: int, shift: float | str) -> Tensor:
        """The rules known by name are "flux" and "uno" (algorithm.shifted_sigmas)."""
        if isinstance(shift, str) and shift not in ("flux", "uno"):
            raise UserError(f"sampling.shift = {shift!r}: this policy knows numbers, flux and uno")
        return shifted_sigmas(steps, shift, self.latent_shape[0])

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
