"""Reference-conditioned FLUX (UNO, Kontext): the stock diffusers transformer, reference tokens beside the target's.

FLUX.1-dev, FLUX.1 Kontext and the toy world's checkpoint load through the same lines; only sizes and
the position scheme differ. Where this departs from UNO's code: references are encoded by the
posterior's mean or by a draw that the picture seeds (latents.py), and time and guidance reach their
embeddings in full precision whatever the model's dtype (exact_time.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from cgrpo.algorithm import shifted_sigmas
from cgrpo.errors import UserError
from cgrpo.policies.adapters.files import Origin
from cgrpo.policies.adapters.fingerprint import transformer_fingerprint
from cgrpo.policies.adapters.layouts import FLUX, Layout
from cgrpo.policies.checkpoints.loading import Checkpoint, load_parts
from cgrpo.policies.encodings.latents import LatentCodec, Posterior, pack
from cgrpo.policies.encodings.preprocess import Rule
from cgrpo.policies.encodings.store import EncodingStore, StoredPrompts
from cgrpo.policies.encodings.text import PromptEncoder, Prompts
from cgrpo.policies.exact_time import keep_exact_time
from cgrpo.policies.flux.condition import FluxCondition
from cgrpo.policies.flux.positions import PositionScheme, position_ids
from cgrpo.policies.referenced import ReferencedPolicy
from cgrpo.types import Batch

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel


class FluxPolicy(ReferencedPolicy[FluxCondition]):
    """A FLUX transformer with its autoencoder and text encoders; see ``ReferencedPolicy`` for what it is made of.

    guidance   distilled guidance scale, used by ``encode_parts`` and ``condition``; without effect
               where the transformer has no guidance embedding
    pe         position scheme of the references (positions.py)
    """

    layout: ClassVar[Layout] = FLUX

    def __init__(
        self,
        transformer: FluxTransformer2DModel,
        codec: LatentCodec | None,
        prompts: Prompts | None,
        *,
        height: int,
        width: int,
        reference_size: int,
        guidance: float = 3.5,
        evaluation_guidance: float = 0.0,
        pe: PositionScheme = "d",
        rule: Rule = "uno",
        several_size: int = 0,
        device: str | torch.device | None = None,
        offload: bool = False,
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
        self.pe: PositionScheme = pe
        self._takes_guidance: bool = transformer.config["guidance_embeds"]
        if evaluation_guidance and not self._takes_guidance:
            raise UserError(
                f"policy.evaluation_guidance = {evaluation_guidance:g}: this transformer takes none; leave it out"
            )
        keep_exact_time(transformer, transformer.time_text_embed)

    @classmethod
    def from_folder(
        cls,
        path: str | Path | Checkpoint,
        *,
        height: int,
        width: int,
        reference_size: int,
        guidance: float = 3.5,
        evaluation_guidance: float = 0.0,
        pe: PositionScheme = "d",
        rule: Rule = "uno",
        several_size: int = 0,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        offload: bool = False,
        spread: bool = False,
        posterior: Posterior = "mean",
        store: EncodingStore | None = None,
    ) -> FluxPolicy:
        """The policy of a checkpoint: a diffusers folder, its name on the model hub, or BFL's files (loading.py).

        Only safetensors are read. ``dtype`` is that of the transformer and the text encoders; the autoencoder stays
        in fp32. ``spread`` leaves the transformer on the CPU until ``shard`` is called. ``posterior``: what stands
        for a reference (latents.py). ``store``: encodings to use; the text encoders are not loaded then.
        Raises UserError naming all that is missing, unknown, mis-shaped, or of another checkpoint.
        """
        checkpoint = path if isinstance(path, Checkpoint) else Checkpoint(str(path))
        cpu, device = torch.device("cpu"), torch.device(device)
        parts = load_parts(
            checkpoint,
            dtype,
            cpu if spread else device,
            text_encoders=store is None,
            beside=cpu if offload else device,
        )
        prompts: Prompts | None = None if store is None else StoredPrompts(store, device)
        if parts.clip and parts.t5 and parts.clip_tokenizer and parts.t5_tokenizer:
            prompts = PromptEncoder(parts.clip, parts.t5, parts.clip_tokenizer, parts.t5_tokenizer)
        policy = cls(
            parts.transformer,
            LatentCodec(parts.vae, posterior, store),
            prompts,
            height=height,
            width=width,
            reference_size=reference_size,
            guidance=guidance,
            evaluation_guidance=evaluation_guidance,
            pe=pe,
            rule=rule,
            several_size=several_size,
            device=device,
            offload=offload,
        )
        policy.origin = Origin(checkpoint.path, transformer_fingerprint(parts.transformer))
        return policy

    def noise(self, seed: int) -> Tensor:
        """As diffusers' FLUX pipelines draw it from a CPU generator: latents first, then tokens."""
        rows, columns = self.grid
        generator = torch.Generator().manual_seed(seed)
        return pack(torch.randn(1, self._channels // 4, 2 * rows, 2 * columns, generator=generator))

    def sigmas(self, steps: int, shift: float | str) -> Tensor:
        """The rules known by name are "flux" and "uno" (algorithm.shifted_sigmas)."""
        if isinstance(shift, str) and shift not in ("flux", "uno"):
            raise UserError(f"sampling.shift = {shift!r}: this policy knows numbers, flux and uno")
        return shifted_sigmas(steps, shift, self.latent_shape[0])

    def conditions(self, batch: Batch, parts: Sequence[Sequence[int]], guidance: float) -> list[FluxCondition]:
        text_NLC, pooled_NC = self._texts(batch.prompts)
        latents = self._reference_latents(batch, parts)
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
        sample; None means the policy's own.
        """
        n = text_NLC.shape[0]
        guidance_N = torch.as_tensor(self.guidance if guidance is None else guidance, dtype=torch.float32).expand(n)
        tokens = [pack(latent_NCHW) for latent_NCHW in reference_latents]
        reference_NLC = torch.cat(tokens, dim=1) if tokens else text_NLC.new_zeros(n, 0, self._channels)
        sizes = [(latent.shape[-2] // 2, latent.shape[-1] // 2) for latent in reference_latents]
        ids_LD = position_ids(self.grid, sizes, self.pe)
        return FluxCondition(
            text_NLC=text_NLC.to(self.device),
            pooled_NC=pooled_NC.to(self.device),
            reference_NLC=reference_NLC.to(self.device),
            ids_LD=ids_LD.to(self.device),
            guidance_N=guidance_N.to(self.device),
        )

    def velocity(self, x_NLC: Tensor, sigma_N: Tensor, cond: FluxCondition) -> Tensor:
        """The model's velocity (noise - data) at ``x_NLC``, sigma in [0, 1] fp32; in the dtype of ``x_NLC``.

        Target and reference tokens go through the transformer side by side under the same sigma
        (references stay clean); only the target's part of the output is returned. A bf16 base computes
        under autocast, as UNO trains: the fp32 adapter's products are bf16 too. Guidance reaches the model
        as 1000 * guidance in fp32, where the paper's release rounds 3500 to 3504 through bf16.
        """
        tokens_NLC = torch.cat((x_NLC.to(self.dtype), cond.reference_NLC.to(self.dtype)), dim=1)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            (v_NLC,) = self.transformer(
                hidden_states=tokens_NLC,
                encoder_hidden_states=cond.text_NLC.to(self.dtype),
                pooled_projections=cond.pooled_NC.to(self.dtype),
                timestep=sigma_N,
                guidance=cond.guidance_N if self._takes_guidance else None,
                img_ids=cond.ids_LD,
                txt_ids=cond.ids_LD.new_zeros(cond.text_NLC.shape[1], 3),
                return_dict=False,
            )
        return v_NLC[:, : x_NLC.shape[1]].to(x_NLC.dtype)

    def mark(self) -> dict[str, Any]:
        return super().mark() | {"position_ids": self.pe}
