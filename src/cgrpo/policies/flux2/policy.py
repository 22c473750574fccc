"""Reference-conditioned FLUX.2-klein: the stock diffusers transformer, reference tokens beside the target's.

Computes what diffusers' Flux2KleinPipeline computes, base models of 4B and 9B through the same lines. Where this
departs from it: both halves of the guidance go through the transformer in one batch (guidance.py), time reaches its
embedding in full precision whatever the model's dtype (exact_time.py), and Qwen3 ends where its states are read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from cgrpo.algorithm import shifted_sigmas
from cgrpo.errors import UserError
from cgrpo.policies.adapters.files import Origin
from cgrpo.policies.adapters.fingerprint import transformer_fingerprint
from cgrpo.policies.adapters.layouts import FLUX2, Layout
from cgrpo.policies.checkpoints.flux2 import is_distilled, load_flux2_parts
from cgrpo.policies.checkpoints.loading import Checkpoint, locate_base
from cgrpo.policies.encodings.latents import LatentCodec, Posterior, pack
from cgrpo.policies.encodings.preprocess import Rule
from cgrpo.policies.encodings.store import EncodingStore, StoredPrompts
from cgrpo.policies.encodings.text import Prompts
from cgrpo.policies.exact_time import keep_exact_time
from cgrpo.policies.flux2.condition import Flux2Condition
from cgrpo.policies.flux2.latents import Flux2Codec
from cgrpo.policies.flux2.positions import position_ids, word_ids
from cgrpo.policies.flux2.text import Flux2PromptEncoder
from cgrpo.policies.guidance import GuidanceGradient, guided
from cgrpo.policies.referenced import ReferencedPolicy
from cgrpo.types import Batch

if TYPE_CHECKING:
    from diffusers import Flux2Transformer2DModel

NEGATIVE = ""  # the stock pipeline's only negative prompt


class Flux2Policy(ReferencedPolicy[Flux2Condition]):
    """A FLUX.2-klein transformer with its autoencoder and text encoder; see ``ReferencedPolicy``.

    guidance            classifier-free guidance scale while training, 1 or more; 1 is off, for half the cost
    guidance_gradient   which halves of the guidance gradients go through (guidance.py)
    distilled           such a model takes no guidance: any scale but 1 is refused
    """

    layout: ClassVar[Layout] = FLUX2
    most_references: ClassVar[int | None] = 10  # FLUX.2's announcement names as many; the stock code has no limit

    def __init__(
        self,
        transformer: Flux2Transformer2DModel,
        codec: LatentCodec | None,
        prompts: Prompts | None,
        *,
        height: int,
        width: int,
        reference_size: int,
        guidance: float = 4.0,
        evaluation_guidance: float = 0.0,
        guidance_gradient: GuidanceGradient = "both",
        rule: Rule = "flux2",
        several_size: int = 0,
        device: str | torch.device | None = None,
        offload: bool = False,
        distilled: bool = False,
    ) -> None:
        super().__init__(
            transformer,
            codec,
            prompts,
            height=height,
            width=width,
            reference_size=reference_size,
            several_size=several_size,
            rule=rule,
            guidance=guidance,
            evaluation_guidance=evaluation_guidance,
            device=device,
            offload=offload,
        )
        self.guidance_gradient: GuidanceGradient = guidance_gradient
        for key, scale in {"guidance": guidance, "evaluation_guidance": evaluation_guidance or guidance}.items():
            if distilled and scale != 1:
                raise UserError(
                    f"policy.{key} = {scale:g}: this checkpoint is distilled and takes no guidance; set policy.{key}=1"
                )
            if scale < 1:
                raise UserError(f"policy.{key} = {scale:g}: must be 1 (no guidance) or more")
        keep_exact_time(transformer, transformer.time_guidance_embed, torch.promote_types(self.dtype, torch.float32))

    @classmethod
    def from_folder(
        cls,
        path: str | Path | Checkpoint,
        *,
        height: int,
        width: int,
        reference_size: int,
        guidance: float = 4.0,
        evaluation_guidance: float = 0.0,
        guidance_gradient: GuidanceGradient = "both",
        rule: Rule = "flux2",
        several_size: int = 0,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        offload: bool = False,
        spread: bool = False,
        posterior: Posterior = "mean",
        store: EncodingStore | None = None,
    ) -> Flux2Policy:
        """The policy of a diffusers folder, or of its name on the model hub. Only safetensors are read.

        ``dtype`` is that of the transformer and the text encoder; the autoencoder stays in fp32. ``spread`` leaves
        the transformer on the CPU until ``shard`` is called. ``posterior``: what stands for a reference (latents.py).
        ``store``: encodings to use; the text encoder is not loaded then.
        Raises UserError naming all that is missing, unknown, mis-shaped, or of another checkpoint.
        """
        checkpoint = path if isinstance(path, Checkpoint) else Checkpoint(str(path))
        cpu, device = torch.device("cpu"), torch.device(device)
        parts = load_flux2_parts(
            checkpoint,
            dtype,
            cpu if spread else device,
            text_encoder=store is None,
            beside=cpu if offload else device,
        )
        prompts: Prompts | None = None if store is None else StoredPrompts(store, device)
        if parts.qwen and parts.tokenizer:
            prompts = Flux2PromptEncoder(parts.qwen, parts.tokenizer)
        policy = cls(
            parts.transformer,
            Flux2Codec(parts.vae, posterior, store),
            prompts,
            height=height,
            width=width,
            reference_size=reference_size,
            guidance=guidance,
            evaluation_guidance=evaluation_guidance,
            guidance_gradient=guidance_gradient,
            rule=rule,
            several_size=several_size,
            device=device,
            offload=offload,
            distilled=is_distilled(locate_base(checkpoint)),
        )
        policy.origin = Origin(checkpoint.path, transformer_fingerprint(parts.transformer))
        return policy

    def noise(self, seed: int) -> Tensor:
        """As the stock pipeline draws it from a CPU generator: tokens' channels first."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(1, self._channels, *self.grid, generator=generator).flatten(2).transpose(1, 2).contiguous()

    def sigmas(self, steps: int, shift: float | str) -> Tensor:
        """The rule known by name is "flux2"."""
        if shift == "flux2":
            return flux2_sigmas(steps, self.latent_shape[0])
        if isinstance(shift, str):
            raise UserError(f"sampling.shift = {shift!r}: this policy knows numbers and flux2")
        return shifted_sigmas(steps, shift)

    def conditions(self, batch: Batch, parts: Sequence[Sequence[int]], guidance: float) -> list[Flux2Condition]:
        prompts = [*batch.prompts, *([NEGATIVE] if guidance != 1 else [])]
        text_NLC, _ = self._texts(prompts)
        latents = self._reference_latents(batch, parts)
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
        n = text_NLC.shape[0]
        tokens = [pack(latent_NCHW) for latent_NCHW in reference_latents]
        reference_NLC = torch.cat(tokens, dim=1) if tokens else text_NLC.new_zeros(n, 0, self._channels)
        sizes = [(latent.shape[-2] // 2, latent.shape[-1] // 2) for latent in reference_latents]
        scale_N = torch.as_tensor(guidance, dtype=torch.float32).expand(n).to(self.device)
        return Flux2Condition(
            text_NLC=text_NLC.to(self.device),
            reference_NLC=reference_NLC.to(self.device),
            ids_LD=position_ids(self.grid, sizes).to(self.device),
            negative_LC=None if negative_LC is None else negative_LC.to(self.device),
            scale_N=None if negative_LC is None else scale_N,
        )

    def velocity(self, x_NLC: Tensor, sigma_N: Tensor, cond: Flux2Condition) -> Tensor:
        """The guided velocity (noise - data) at ``x_NLC``, sigma in [0, 1] fp32; in the dtype of ``x_NLC``.

        Target and reference tokens go through the transformer side by side under the same sigma
        (references stay clean); only the target's part of the output is returned. A bf16 base computes
        under autocast: the fp32 adapter's products are bf16 too.
        """
        if cond.negative_LC is None or cond.scale_N is None:
            return self._forward(x_NLC, sigma_N, cond)
        halves = cond.conditional(), cond.negative()
        return guided(self._forward, x_NLC, sigma_N, *halves, cond.scale_N, self.guidance_gradient)

    def _forward(self, x_NLC: Tensor, sigma_N: Tensor, cond: Flux2Condition) -> Tensor:
        """One forward of the transformer, without guidance."""
        tokens_NLC = torch.cat((x_NLC.to(self.dtype), cond.reference_NLC.to(self.dtype)), dim=1)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            (v_NLC,) = self.transformer(
                hidden_states=tokens_NLC,
                encoder_hidden_states=cond.text_NLC.to(self.dtype),
                timestep=sigma_N,
                img_ids=cond.ids_LD,
                txt_ids=word_ids(cond.text_NLC.shape[1], cond.ids_LD.device),
                return_dict=False,
            )
        return v_NLC[:, : x_NLC.shape[1]].to(x_NLC.dtype)


def flux2_sigmas(steps: int, tokens: int) -> Tensor:
    """The stock pipeline's grid, fp32 [steps + 1]: shift e^mu of (steps, tokens), rounded as its scheduler rounds it.

    mu is linear in the tokens for 10 steps and for 200, and between these linear in the steps; above 4300 tokens it
    is that of 200 steps (``compute_empirical_mu``, whose constants these are).
    """
    many = 0.00016927 * tokens + 0.45666666
    if tokens > 4300:
        mu = many
    else:
        slope = (many - (8.73809524e-05 * tokens + 1.89833333)) / 190
        mu = slope * steps + (many - 200 * slope)
    s = np.linspace(1, 1 / steps, steps).astype(np.float32)  # torch divides a number by a tensor in two roundings
    shifted = math.exp(mu) / (math.exp(mu) + (1 / s - 1))
    return torch.cat((torch.from_numpy(shifted), torch.zeros(1)))
