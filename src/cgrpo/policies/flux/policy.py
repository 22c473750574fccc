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
from PIL.Image import Image, Resampling
from torch import Tensor

from cgrpo.algorithm import shifted_sigmas
from cgrpo.errors import UserError
from cgrpo.policies.adapters.files import Origin
from cgrpo.policies.adapters.fingerprint import transformer_fingerprint
from cgrpo.policies.adapters.layouts import FLUX, Layout
from cgrpo.policies.checkpoints.loading import Checkpoint, load_parts
from cgrpo.policies.encodings.latents import LatentCodec, Posterior, pack, unpack
from cgrpo.policies.encodings.preprocess import Rule, prepare_references, require_one_size
from cgrpo.policies.encodings.store import EncodingStore, StoredPrompts
from cgrpo.policies.encodings.text import PromptEncoder, Prompts
from cgrpo.policies.fingerprint import models_fingerprint
from cgrpo.policies.flux.condition import FluxCondition
from cgrpo.policies.flux.exact_time import keep_exact_time
from cgrpo.policies.flux.positions import PositionScheme, position_ids
from cgrpo.policies.lora import LoraPolicy
from cgrpo.policies.memory import on_device
from cgrpo.types import Batch

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel


class FluxPolicy(LoraPolicy[FluxCondition]):
    """A FLUX transformer with its autoencoder and text encoders; see ``base.Policy`` for the contract.

    height, width    pixels of the generated picture; multiples of one token's pixels (16 for FLUX)
    reference_size   pixels of the longer side of a task's only reference (UNO: 512)
    several_size     the same where a task has several references (UNO: 320); 0 means reference_size
    rule             how references are resized (preprocess.py)
    guidance         distilled guidance scale, used by ``encode`` and ``condition``; without effect
                     where the transformer has no guidance embedding
    pe               position scheme of the references (positions.py)
    device           where all computing is done; default: where the transformer is
    offload          autoencoder and text encoders wait in the CPU's memory between calls

    Everything is frozen on construction; ``add_adapter`` or ``load_adapter`` adds what trains. ``transformer`` may
    be replaced by a wrapped one (DDP): its settings are read only here. Codec and prompt encoder may be None where
    the policy is driven by tensors alone.
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
        pe: PositionScheme = "d",
        rule: Rule = "uno",
        several_size: int = 0,
        device: str | torch.device | None = None,
        offload: bool = False,
    ) -> None:
        self.transformer = transformer.requires_grad_(False).eval()
        self.codec, self.prompts = codec, prompts
        self.height, self.width, self.reference_size = height, width, reference_size
        self.several_size = several_size
        self.guidance = guidance
        self.pe: PositionScheme = pe
        self.rule: Rule = rule
        self.offload = offload
        # Which weights these are: from_folder and begin_with say; unknown where the model was built in memory.
        self.origin = Origin("", "")
        self.pixels_per_token = codec.pixels_per_token if codec else 16
        self._channels: int = transformer.config["in_channels"]
        self._takes_guidance: bool = transformer.config["guidance_embeds"]
        # Not transformer.dtype: an fp32 adapter on a bf16 base would make that ambiguous.
        self.dtype = transformer.x_embedder.weight.dtype
        self.device = torch.device(device or transformer.x_embedder.weight.device)
        if height % self.pixels_per_token or width % self.pixels_per_token or min(height, width) < 1:
            raise UserError(
                f"a picture of {width} x {height} pixels: both sides must be multiples of {self.pixels_per_token}"
            )
        self.grid = (height // self.pixels_per_token, width // self.pixels_per_token)
        keep_exact_time(transformer)

    @classmethod
    def from_folder(
        cls,
        path: str | Path | Checkpoint,
        *,
        height: int,
        width: int,
        reference_size: int,
        guidance: float = 3.5,
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
            pe=pe,
            rule=rule,
            several_size=several_size,
            device=device,
            offload=offload,
        )
        policy.origin = Origin(checkpoint.path, transformer_fingerprint(parts.transformer))
        return policy

    @property
    def latent_shape(self) -> tuple[int, int]:
        """(L, C) of one sample's packed latents."""
        return self.grid[0] * self.grid[1], self._channels

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

    def encode_parts(self, batch: Batch, parts: Sequence[Sequence[int]]) -> list[FluxCondition]:
        """A condition for each of ``parts``; texts are encoded in one go, each reference is resized by ``rule`` first.

        Raises UserError unless all tasks of a part have equally many references and the i-th ones end with equal
        sizes: position ids are shared by the batch.
        """
        if self.codec is None or self.prompts is None:
            raise RuntimeError("this policy was built without an autoencoder and text encoders: use condition()")
        with on_device(self.device, *self.prompts.modules, offload=self.offload):
            text_NLC, pooled_NC = self.prompts.encode(batch.prompts)
        with on_device(self.device, self.codec.vae, offload=self.offload):
            latents = [self._reference_latents(batch.select(rows)) for rows in parts]
        return [
            self.condition(text_NLC[list(rows)], pooled_NC[list(rows)], latent)
            for rows, latent in zip(parts, latents, strict=True)
        ]

    def _reference_latents(self, batch: Batch) -> list[Tensor]:
        assert self.codec is not None
        counts = sorted({len(pictures) for pictures in batch.references})
        if len(counts) > 1:
            raise UserError(f"tasks with {counts} references in one batch; group tasks by their number of references")
        latents, prepared = [], [self.prepare(pictures) for pictures in batch.references]
        for place in range(counts[0] if counts else 0):
            column = [pictures[place] for pictures in prepared]
            require_one_size(column, batch.ids, place)
            latents.append(self.codec.encode(column))
        return latents

    def alike(self, batch: Batch, most: int) -> list[list[int]]:
        """The batch's tasks in parts that can share a batch: of equal reference sizes, at most ``most`` tasks each."""
        rows_by_sizes: dict[tuple[tuple[int, int], ...], list[int]] = {}
        for row, pictures in enumerate(batch.references):
            sizes = tuple(picture.size for picture in self.prepare(pictures))
            rows_by_sizes.setdefault(sizes, []).append(row)
        return [rows[at : at + most] for rows in rows_by_sizes.values() for at in range(0, len(rows), most)]

    def prepare(self, references: Sequence[Image]) -> list[Image]:
        """A task's references as the autoencoder sees them."""
        return prepare_references(references, self.rule, self.reference_size, self.several_size, self.pixels_per_token)

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

    def encode_targets(self, pictures: Sequence[Image]) -> Tensor:
        """RGB pictures as x_NLC at sigma = 0 (fp32), stretched to the policy's size as UNO's training does."""
        if self.codec is None:
            raise RuntimeError("this policy was built without an autoencoder")
        size = (self.width, self.height)
        stretched = [p if p.size == size else p.resize(size, Resampling.LANCZOS) for p in pictures]
        with on_device(self.device, self.codec.vae, offload=self.offload):
            return pack(self.codec.encode(stretched))

    def cut_prompts(self, prompts: Sequence[str]) -> dict[str, list[int]]:
        return self.prompts.cut(prompts) if isinstance(self.prompts, PromptEncoder) else {}

    def decode(self, x_NLC: Tensor) -> Tensor:
        """Latents at sigma = 0 as pictures: uint8 on the CPU, [N, H, W, 3]."""
        if self.codec is None:
            raise RuntimeError("this policy was built without an autoencoder")
        with on_device(self.device, self.codec.vae, offload=self.offload):
            return self.codec.decode(unpack(x_NLC, *self.grid))

    def mark(self) -> dict[str, Any]:
        """See ``Policy``; None for models that aren't loaded (stored encodings, tensors alone)."""
        texts = self.prompts.modules if self.prompts else ()
        return {
            "height": self.height,
            "width": self.width,
            "reference_size": self.reference_size,
            "several_size": self.several_size,
            "reference_rule": self.rule,
            "reference_latents": self.codec.posterior if self.codec else None,
            "position_ids": self.pe,
            "guidance": self.guidance,
            "dtype": str(self.dtype).removeprefix("torch."),
            "autoencoder": models_fingerprint([self.codec.vae]) if self.codec else None,
            "text_encoders": models_fingerprint(texts) if texts else None,
            "transformer": self.weights_mark(),
        }
