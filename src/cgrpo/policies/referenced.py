"""What families have in common whose references are the autoencoder's latents, beside the picture's own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from PIL.Image import Image, Resampling
from torch import Tensor

from cgrpo.errors import UserError
from cgrpo.policies.adapters.files import Origin
from cgrpo.policies.base import C
from cgrpo.policies.encodings.latents import LatentCodec, pack, unpack
from cgrpo.policies.encodings.preprocess import Rule, prepare_references, require_one_size
from cgrpo.policies.encodings.text import Prompts
from cgrpo.policies.fingerprint import models_fingerprint
from cgrpo.policies.lora import LoraPolicy
from cgrpo.policies.memory import on_device
from cgrpo.types import Batch


class ReferencedPolicy(LoraPolicy[C]):
    """A diffusers transformer over latent tokens, with its autoencoder and text encoders.

    height, width    pixels of the generated picture; multiples of one token's pixels (16 for FLUX)
    reference_size   pixels that ``rule`` gives a task's only reference (preprocess.py)
    several_size     the same where a task has several references; 0 means reference_size
    rule             how references are resized (preprocess.py)
    guidance         scale while training
    evaluation_guidance   scale while evaluating and sampling; 0 means guidance
    device           where all computing is done; default: where the transformer is
    offload          autoencoder and text encoders wait in the CPU's memory between calls

    Everything is frozen on construction; ``add_adapter`` or ``load_adapter`` adds what trains. ``transformer`` may
    be replaced by a wrapped one: its settings are read only here. Codec and prompt encoder may be None where
    the policy is driven by tensors alone. A family leaves to this class all but velocity, noise, sigmas and
    ``conditions``.
    """

    most_references: ClassVar[int | None] = None  # of a task; None is any number

    def __init__(
        self,
        transformer: Any,
        codec: LatentCodec | None,
        prompts: Prompts | None,
        *,
        height: int,
        width: int,
        reference_size: int,
        several_size: int,
        rule: Rule,
        guidance: float,
        evaluation_guidance: float,
        device: str | torch.device | None,
        offload: bool,
    ) -> None:
        self.transformer = transformer.requires_grad_(False).eval()
        self.codec, self.prompts = codec, prompts
        self.height, self.width, self.reference_size = height, width, reference_size
        self.several_size = several_size
        self.rule: Rule = rule
        self.guidance, self.evaluation_guidance = guidance, evaluation_guidance
        self.offload = offload
        # Which weights these are: from_folder and begin_with say; unknown where the model was built in memory.
        self.origin = Origin("", "")
        self.pixels_per_token = codec.pixels_per_token if codec else 16
        self._channels: int = transformer.config["in_channels"]
        # Not transformer.dtype: an fp32 adapter on a bf16 base would make that ambiguous.
        self.dtype = transformer.x_embedder.weight.dtype
        self.device = torch.device(device or transformer.x_embedder.weight.device)
        if height % self.pixels_per_token or width % self.pixels_per_token or min(height, width) < 1:
            raise UserError(
                f"a picture of {width} x {height} pixels: both sides must be multiples of {self.pixels_per_token}"
            )
        self.grid = (height // self.pixels_per_token, width // self.pixels_per_token)

    @property
    def latent_shape(self) -> tuple[int, int]:
        """(L, C) of one sample's packed latents."""
        return self.grid[0] * self.grid[1], self._channels

    @abstractmethod
    def conditions(self, batch: Batch, parts: Sequence[Sequence[int]], guidance: float) -> list[C]:
        """``encode_parts`` at a scale of guidance."""

    def encode_parts(self, batch: Batch, parts: Sequence[Sequence[int]]) -> list[C]:
        """A condition for each of ``parts``, guided as in training; texts are encoded in one go.

        Each reference is resized by ``rule`` first. Raises UserError unless all tasks of a part have equally many
        references and the i-th ones end with equal sizes: position ids are shared by the batch.
        """
        return self.conditions(batch, parts, self.guidance)

    def encode(self, batch: Batch) -> C:
        """A condition of all tasks, guided as in evaluation. Raises UserError as ``encode_parts``."""
        (cond,) = self.conditions(batch, [range(len(batch))], self.evaluation_guidance or self.guidance)
        return cond

    def _texts(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        if self.codec is None or self.prompts is None:
            raise RuntimeError("this policy was built without an autoencoder and text encoders: use condition()")
        with on_device(self.device, *self.prompts.modules, offload=self.offload):
            return self.prompts.encode(prompts)

    def _reference_latents(self, batch: Batch, parts: Sequence[Sequence[int]]) -> list[list[Tensor]]:
        """For each part the scaled latents [N, c, h, w] of every reference, in order."""
        assert self.codec is not None
        with on_device(self.device, self.codec.vae, offload=self.offload):
            return [self._latents_of(batch.select(rows)) for rows in parts]

    def _latents_of(self, batch: Batch) -> list[Tensor]:
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
        """A task's references as the autoencoder sees them. Raises UserError where they are too many."""
        if self.most_references is not None and len(references) > self.most_references:
            raise UserError(
                f"a task with {len(references)} references: this policy takes at most {self.most_references}; "
                "leave some out"
            )
        return prepare_references(references, self.rule, self.reference_size, self.several_size, self.pixels_per_token)

    def encode_targets(self, pictures: Sequence[Image]) -> Tensor:
        """RGB pictures as x_NLC at sigma = 0 (fp32), stretched to the policy's size as UNO's training does."""
        if self.codec is None:
            raise RuntimeError("this policy was built without an autoencoder")
        size = (self.width, self.height)
        stretched = [p if p.size == size else p.resize(size, Resampling.LANCZOS) for p in pictures]
        with on_device(self.device, self.codec.vae, offload=self.offload):
            return pack(self.codec.encode(stretched))

    def cut_prompts(self, prompts: Sequence[str]) -> dict[str, list[int]]:
        return self.prompts.cut(prompts) if self.prompts else {}

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
            "guidance": self.evaluation_guidance or self.guidance,
            "dtype": str(self.dtype).removeprefix("torch."),
            "autoencoder": models_fingerprint([self.codec.vae]) if self.codec else None,
            "text_encoders": models_fingerprint(texts) if texts else None,
            "transformer": self.weights_mark(),
        }
