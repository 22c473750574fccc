"""Policies whose references are the autoencoder's latents, as tokens beside the picture's own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from PIL.Image import Image, Resampling
from torch import Tensor

from cgrpo.algorithm import shifted_sigmas
from cgrpo.errors import UserError
from cgrpo.extensions import resolve
from cgrpo.policies.conditions import PlacedCondition
from cgrpo.policies.encodings.latents import LatentCodec, pack, unpack
from cgrpo.policies.encodings.preprocess import require_one_size
from cgrpo.policies.fingerprint import models_fingerprint
from cgrpo.policies.memory import on_device
from cgrpo.policies.parts import RC, CheckpointPolicy, prepared
from cgrpo.types import Batch


class ReferencedPolicy(CheckpointPolicy[RC]):
    """A policy whose references are tokens beside the picture's own. A family adds ``velocity``, too."""

    most_references: ClassVar[int | None] = None  # of a task; None is any number

    @property
    def latent_shape(self) -> tuple[int, int]:
        return self.geometry.grid[0] * self.geometry.grid[1], self.geometry.channels

    def noise(self, seed: int) -> Tensor:
        return self.geometry.noise(seed)

    def sigmas(self, steps: int, shift: float | str) -> Tensor:
        if not isinstance(shift, str):
            return shifted_sigmas(steps, shift)
        if shift not in self.family.shifts:
            rules = " and ".join(["numbers", *self.family.shifts])
            raise UserError(f"sampling.shift = {shift!r}: this policy knows {rules}")
        return resolve(self.family.shifts[shift])(steps, self.latent_shape[0])

    def check_guidance(self) -> None:
        """Raises UserError for a scale of classifier-free guidance below 1, while training or evaluating."""
        for key, scale in {"guidance": self.settings.guidance, "evaluation_guidance": self.evaluation_guidance}.items():
            if scale < 1:
                raise UserError(f"policy.{key} = {scale:g}: must be 1 (no guidance) or more")

    @abstractmethod
    def conditions(self, batch: Batch, parts: Sequence[Sequence[int]], guidance: float) -> list[RC]:
        """``encode_parts`` at a scale of guidance."""

    def encode_parts(self, batch: Batch, parts: Sequence[Sequence[int]]) -> list[RC]:
        """A condition for each of ``parts``, guided as in training; texts are encoded in one go.

        Raises UserError unless all tasks of a part have equally many references and the i-th ones are of equal sizes
        once they are resized: position ids are shared by the batch.
        """
        return self.conditions(batch, parts, self.settings.guidance)

    def encode(self, batch: Batch) -> RC:
        (cond,) = self.conditions(batch, [range(len(batch))], self.evaluation_guidance)
        return cond

    @property
    def evaluation_guidance(self) -> float:
        """The scale of guidance while evaluating and sampling."""
        return self.settings.evaluation_guidance or self.settings.guidance

    def texts(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(text_NLC, pooled_NC) of prompts."""
        assert self.prompts is not None, "built without text encoders: use condition()"
        with on_device(self.device, *self.prompts.modules, offload=self.settings.offload):
            return self.prompts.encode(prompts)

    def reference_latents(self, batch: Batch, parts: Sequence[Sequence[int]]) -> list[list[Tensor]]:
        """For each part the scaled latents [N, c, h, w] of every reference, in order."""
        with self._codec() as codec:
            return [self._latents_of(codec, batch.select(rows)) for rows in parts]

    def _latents_of(self, codec: LatentCodec, batch: Batch) -> list[Tensor]:
        counts = sorted({len(pictures) for pictures in batch.references})
        if len(counts) > 1:
            raise UserError(f"tasks with {counts} references in one batch; group tasks by their number of references")
        latents, prepared = [], [self.prepare_task(pictures) for pictures in batch.references]
        for place in range(counts[0] if counts else 0):
            column = [pictures[place] for pictures in prepared]
            require_one_size(column, batch.ids, place)
            latents.append(codec.encode(column))
        return latents

    def tokens(self, reference_latents: Sequence[Tensor], text_NLC: Tensor) -> Tensor:
        """reference_NLC of the latents [N, c, h, w] of each reference, beside these texts."""
        empty_NLC = text_NLC.new_zeros(len(text_NLC), 0, self.geometry.channels)
        tokens = [pack(latent_NCHW, self.codec_type.patch) for latent_NCHW in reference_latents]
        return torch.cat(tokens, dim=1) if tokens else empty_NLC

    def placed(self, text_NLC: Tensor, reference_latents: Sequence[Tensor]) -> dict[str, Tensor]:
        """The fields of ``PlacedCondition``; latents [N, c, h, w] of each reference become tokens with ids."""
        grids = [(latent.shape[-2] // 2, latent.shape[-1] // 2) for latent in reference_latents]
        fields = {
            "text_NLC": text_NLC,
            "reference_NLC": self.tokens(reference_latents, text_NLC),
            "ids_LD": self.geometry.ids(grids),
        }
        return {name: value.to(self.device) for name, value in fields.items()}

    def forward(self, x_NLC: Tensor, sigma_N: Tensor, cond: PlacedCondition, **inputs: Tensor | None) -> Tensor:
        """One forward of the transformer: the velocity at ``x_NLC``, in its dtype. ``inputs``: the family's own.

        Picture and reference tokens go through the transformer side by side under the same sigma
        (references stay clean); only the picture's part of the output is returned. A bf16 base computes
        under autocast, as UNO trains: the fp32 adapter's products are bf16 too.
        """
        tokens_NLC = torch.cat((x_NLC.to(self.dtype), cond.reference_NLC.to(self.dtype)), dim=1)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            (v_NLC,) = self.transformer(
                hidden_states=tokens_NLC,
                encoder_hidden_states=cond.text_NLC.to(self.dtype),
                timestep=sigma_N,
                img_ids=cond.ids_LD,
                txt_ids=self.geometry.text_ids(cond.text_NLC.shape[1]).to(self.device),
                return_dict=False,
                **inputs,
            )
        return v_NLC[:, : x_NLC.shape[1]].to(x_NLC.dtype)

    def alike(self, batch: Batch, most: int) -> list[list[int]]:
        """The batch's tasks in parts that can share a batch: of equal reference sizes, at most ``most`` tasks each."""
        rows_by_sizes: dict[tuple[tuple[int, int], ...], list[int]] = {}
        for row, pictures in enumerate(batch.references):
            sizes = tuple(picture.size for picture in self.prepare_task(pictures))
            rows_by_sizes.setdefault(sizes, []).append(row)
        return [rows[at : at + most] for rows in rows_by_sizes.values() for at in range(0, len(rows), most)]

    def prepare_task(self, references: Sequence[Image]) -> list[Image]:
        """A task's references as the autoencoder sees them. Raises UserError where they are too many."""
        if self.most_references is not None and len(references) > self.most_references:
            raise UserError(
                f"a task with {len(references)} references: this policy takes at most {self.most_references}; "
                "leave some out"
            )
        return prepared(self.settings, self.geometry.pixels, references)

    def encode_targets(self, pictures: Sequence[Image]) -> Tensor:
        """RGB pictures as x_NLC at sigma = 0 (fp32), stretched to the policy's size as UNO's training does."""
        size = (self.width, self.height)
        stretched = [p if p.size == size else p.resize(size, Resampling.LANCZOS) for p in pictures]
        with self._codec() as codec:
            return pack(codec.encode(stretched), codec.patch)

    def decode(self, x_NLC: Tensor) -> Tensor:
        with self._codec() as codec:
            return codec.decode(unpack(x_NLC, *self.geometry.grid, codec.patch))

    @contextmanager
    def _codec(self) -> Iterator[LatentCodec]:
        """The codec, on the policy's device."""
        assert self.codec is not None, "built without an autoencoder"
        with on_device(self.device, self.codec.vae, offload=self.settings.offload):
            yield self.codec

    def cut_prompts(self, prompts: Sequence[str]) -> dict[str, list[int]]:
        return self.prompts.cut(prompts) if self.prompts else {}

    def pictures_depend_on(self) -> dict[str, Any]:
        """See ``Policy``; None for models that aren't loaded (stored encodings, tensors alone)."""
        texts = self.prompts.modules if self.prompts else ()
        return {
            "height": self.height,
            "width": self.width,
            "reference_size": self.settings.reference_size,
            "several_size": self.settings.several_size,
            "reference_rule": self.settings.reference_rule,
            "reference_latents": self.codec.posterior if self.codec else None,
            "guidance": self.evaluation_guidance,
            "dtype": str(self.dtype).removeprefix("torch."),
            "autoencoder": models_fingerprint([self.codec.vae]) if self.codec else None,
            "text_encoders": models_fingerprint(texts) if texts else None,
            "transformer": self.weights_fingerprint(),
        }
