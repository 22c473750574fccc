"""Reference-conditioned FLUX (UNO): the stock diffusers transformer with reference tokens beside the target's.

FLUX.1-dev and the toy world's checkpoint load through the same lines; only sizes differ. Where this
departs from UNO's code: references are encoded by the posterior's mean (latents.py), and time and
guidance reach their embeddings in full precision whatever the model's dtype (``keep_exact_time``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL.Image import Image, Resampling
from torch import Tensor, nn

from cgrpo.errors import UserError
from cgrpo.policies.adapters import trainable_parameters
from cgrpo.policies.latents import LatentCodec, pack, unpack
from cgrpo.policies.loading import load_parts
from cgrpo.policies.positions import PositionScheme, position_ids
from cgrpo.policies.preprocess import resize_reference
from cgrpo.policies.text import PromptEncoder
from cgrpo.types import Batch, Condition

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel


class FluxPolicy:
    """A FLUX transformer with its autoencoder and text encoders; see ``base.Policy`` for the contract.

    height, width    pixels of the generated picture; multiples of one token's pixels (16 for FLUX)
    reference_size   pixels of a reference's longer side (UNO: 512 for one reference, 320 for several)
    guidance         distilled guidance scale, used by ``encode`` and ``condition``; without effect
                     where the transformer has no guidance embedding
    pe               position scheme of the references (positions.py)

    Everything is frozen on construction; ``adapters.add_adapter(policy.transformer, ...)`` adds what
    trains. ``transformer`` may be replaced by a wrapped one (DDP): its settings are read only here.
    Codec and prompt encoder may be None where the policy is driven by tensors alone.
    """

    def __init__(
        self,
        transformer: FluxTransformer2DModel,
        codec: LatentCodec | None,
        prompts: PromptEncoder | None,
        *,
        height: int,
        width: int,
        reference_size: int,
        guidance: float = 3.5,
        pe: PositionScheme = "d",
    ) -> None:
        self.transformer = transformer.requires_grad_(False).eval()
        self.codec, self.prompts = codec, prompts
        self.height, self.width, self.reference_size = height, width, reference_size
        self.guidance = guidance
        self.pe: PositionScheme = pe
        self.pixels_per_token = codec.pixels_per_token if codec else 16
        self._channels: int = transformer.config["in_channels"]
        self._takes_guidance: bool = transformer.config["guidance_embeds"]
        # Not transformer.dtype: an fp32 adapter on a bf16 base would make that ambiguous.
        self.dtype = transformer.x_embedder.weight.dtype
        self.device = transformer.x_embedder.weight.device
        if height % self.pixels_per_token or width % self.pixels_per_token or min(height, width) < 1:
            raise UserError(
                f"a picture of {width} x {height} pixels: both sides must be multiples of {self.pixels_per_token}"
            )
        self._grid = (height // self.pixels_per_token, width // self.pixels_per_token)
        keep_exact_time(transformer)

    @classmethod
    def from_folder(
        cls,
        path: str | Path,
        *,
        height: int,
        width: int,
        reference_size: int,
        guidance: float = 3.5,
        pe: PositionScheme = "d",
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ) -> FluxPolicy:
        """The policy in a standard diffusers folder (transformer/ vae/ text_encoder{,_2}/ tokenizer{,_2}/).

        Only safetensors are read, and only from disk. ``dtype`` is that of the transformer and the
        text encoders; the autoencoder stays in fp32. Raises UserError if a part is missing, can't be
        read, lacks weights, or doesn't fit the others.
        """
        parts = load_parts(Path(path), dtype, torch.device(device))
        return cls(
            parts.transformer,
            LatentCodec(parts.vae),
            PromptEncoder(parts.clip, parts.t5, parts.clip_tokenizer, parts.t5_tokenizer),
            height=height,
            width=width,
            reference_size=reference_size,
            guidance=guidance,
            pe=pe,
        )

    @property
    def latent_shape(self) -> tuple[int, int]:
        """(L, C) of one sample's packed latents."""
        return self._grid[0] * self._grid[1], self._channels

    def encode(self, batch: Batch) -> Condition:
        """P tasks as a condition of P rows.

        Each reference is resized by UNO's inference rule first. Raises UserError unless all tasks
        have equally many references and the i-th ones end with equal sizes: position ids are shared
        by the batch.
        """
        if self.codec is None or self.prompts is None:
            raise RuntimeError("this policy was built without an autoencoder and text encoders: use condition()")
        text_NLC, pooled_NC = self.prompts.encode(batch.prompts)
        counts = sorted({len(pictures) for pictures in batch.references})
        if len(counts) > 1:
            raise UserError(f"tasks with {counts} references in one batch; group tasks by their number of references")
        latents = []
        for place in range(counts[0] if counts else 0):
            column = [
                resize_reference(pictures[place], self.reference_size, self.pixels_per_token)
                for pictures in batch.references
            ]
            self._check_one_size(column, batch.ids, place)
            latents.append(self.codec.encode(column))
        return self.condition(text_NLC, pooled_NC, latents)

    def condition(
        self,
        text_NLC: Tensor,
        pooled_NC: Tensor,
        reference_latents: Sequence[Tensor] = (),
        guidance: float | Tensor | None = None,
    ) -> Condition:
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
        ids_LD = position_ids(self._grid, sizes, self.pe)
        return Condition(
            text_NLC=text_NLC.to(self.device),
            pooled_NC=pooled_NC.to(self.device),
            reference_NLC=reference_NLC.to(self.device),
            ids_LD=ids_LD.to(self.device),
            guidance_N=guidance_N.to(self.device),
        )

    def velocity(self, x_NLC: Tensor, sigma_N: Tensor, cond: Condition) -> Tensor:
        """The model's velocity (noise - data) at ``x_NLC``, sigma in [0, 1] fp32; in the dtype of ``x_NLC``.

        Target and reference tokens go through the transformer side by side under the same sigma
        (references stay clean); only the target's part of the output is returned. Guidance reaches the
        model as 1000 * guidance in fp32, where the paper's release rounds 3500 to 3504 through bf16.
        """
        tokens_NLC = torch.cat((x_NLC.to(self.dtype), cond.reference_NLC.to(self.dtype)), dim=1)
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
        return pack(self.codec.encode([p if p.size == size else p.resize(size, Resampling.LANCZOS) for p in pictures]))

    def decode(self, x_NLC: Tensor) -> Tensor:
        """Latents at sigma = 0 as pictures: uint8 on the CPU, [N, H, W, 3]."""
        if self.codec is None:
            raise RuntimeError("this policy was built without an autoencoder")
        return self.codec.decode(unpack(x_NLC, *self._grid))

    def trainable_parameters(self) -> list[nn.Parameter]:
        """The transformer's parameters that require gradients: the adapter's, once one is added."""
        return trainable_parameters(self.transformer)

    @staticmethod
    def _check_one_size(pictures: Sequence[Image], ids: Sequence[str], place: int) -> None:
        for picture, name in zip(pictures, ids, strict=True):
            if picture.size != pictures[0].size:
                (width, height), (first_width, first_height) = picture.size, pictures[0].size
                raise UserError(
                    f"reference {place + 1} of task {name} is {width} x {height} after resizing, that of task {ids[0]} "
                    f"{first_width} x {first_height}; batch tasks of equal reference sizes"
                )


def keep_exact_time(transformer: FluxTransformer2DModel) -> None:
    """Let 1000 * sigma and 1000 * guidance reach their embeddings in fp32, whatever the model's dtype.

    The stock forward casts both to the dtype of its first linear layer. Under bf16 (weights or
    autocast) that turns 986 into 984 and 731 into 732: neighbouring steps get one time, and the
    velocity differs visibly from UNO's. Two hooks: one sees what the caller passed, the other hands
    it to the embedding. Installed twice, they do the same.
    """
    passed: dict[str, Tensor | None] = {}

    def remember(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        passed.update(timestep=kwargs["timestep"], guidance=kwargs.get("guidance"))

    def replace(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        exact = [value.float() * 1000 for value in passed.values() if value is not None]
        return (*exact, args[-1])

    transformer.register_forward_pre_hook(remember, with_kwargs=True)
    transformer.time_text_embed.register_forward_pre_hook(replace)
