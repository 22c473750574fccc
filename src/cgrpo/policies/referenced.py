"""Policies whose references are the autoencoder's latents, as tokens beside the picture's own."""

from __future__ import annotations

import functools
import itertools
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import torch
from PIL.Image import Image, Resampling
from torch import Tensor, nn

from cgrpo.errors import UserError
from cgrpo.policies.adapters.files import Origin
from cgrpo.policies.base import Making
from cgrpo.policies.checkpoints import load_together, read_tokenizer, tokenizer_length
from cgrpo.policies.conditions import ReferencedCondition
from cgrpo.policies.encodings.latents import Geometry, LatentCodec, pack, unpack
from cgrpo.policies.encodings.preprocess import prepare_references, require_one_size
from cgrpo.policies.encodings.store import Encoded, EncodingStore, StoredPrompts, encode_batches
from cgrpo.policies.encodings.text import Prompts, Window, cut_prompts
from cgrpo.policies.fingerprint import (
    models_fingerprint,
    part_fingerprint,
    tokenizer_fingerprint,
    transformer_fingerprint,
)
from cgrpo.policies.lora import LoraPolicy
from cgrpo.policies.memory import on_device
from cgrpo.policies.settings import PolicySettings
from cgrpo.types import Batch

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}

RC = TypeVar("RC", bound=ReferencedCondition)


class ReferencedPolicy(LoraPolicy[RC]):
    """A diffusers transformer over latent tokens, with its autoencoder and text encoders.

    settings   sizes, guidance and how references are prepared; the rest of the table is for ``make``
    device     where all computing is done; default: where the transformer is

    Everything is frozen on construction; ``add_adapter`` or ``load_adapter`` adds what trains. ``transformer`` may
    be replaced by a wrapped one: its configuration is read only here. Codec and prompt encoder may be None where
    the policy is driven by tensors alone. A family adds what is abstract here, ``sigmas`` and ``velocity``.
    """

    most_references: ClassVar[int | None] = None  # of a task; None is any number
    also_encoded: ClassVar[tuple[str, ...]] = ()  # prompts that are not the tasks', such as a negative one
    codec_type: ClassVar[type[LatentCodec]] = LatentCodec
    prompts_type: ClassVar[Callable[..., Prompts]]  # made of the text parts, in the order of ``loaders``
    text_encoders: ClassVar[Mapping[str, tuple[str, int]]]  # (part of its tokenizer, most tokens) of each, by part

    def __init__(
        self,
        transformer: Any,
        codec: LatentCodec | None,
        prompts: Prompts | None,
        settings: PolicySettings,
        device: str | torch.device | None = None,
    ) -> None:
        self.transformer = transformer.requires_grad_(False).eval()
        self.codec, self.prompts, self.settings = codec, prompts, settings
        self.height, self.width = settings.height, settings.width
        # Which weights these are: from_checkpoint and begin_with say; unknown where the model was built in memory.
        self.origin = Origin("", "")
        # Not transformer.dtype: an fp32 adapter on a bf16 base would make that ambiguous.
        self.dtype = transformer.x_embedder.weight.dtype
        self.device = torch.device(device or transformer.x_embedder.weight.device)
        pixels = codec.pixels_per_token if codec else 16
        if self.height % pixels or self.width % pixels:
            raise UserError(f"policy.height, policy.width = {self.height}, {self.width}: must be multiples of {pixels}")
        grid = (self.height // pixels, self.width // pixels)
        self.geometry = self.lay_out(pixels, transformer.config["in_channels"], grid)
        self.set_up()

    @abstractmethod
    def set_up(self) -> None:
        """What the family adds to a new policy. Raises UserError for guidance that the transformer can't take."""

    @abstractmethod
    def lay_out(self, pixels: int, channels: int, grid: tuple[int, int]) -> Geometry:
        """The family's geometry; arguments as ``Geometry`` has them."""

    @staticmethod
    @abstractmethod
    def place(settings: PolicySettings, part: str) -> Path:
        """Where a part of the checkpoint lies on disk; loads nothing."""

    @staticmethod
    @abstractmethod
    def loaders(settings: PolicySettings, dtype: torch.dtype | None) -> dict[str, Callable[[], Any]]:
        """What loads each part onto the CPU: "transformer", "autoencoder", then what ``prompts_type`` takes.

        ``dtype`` is the transformer's and the text encoders'; None leaves each weight of all parts as it is on disk.
        """

    @staticmethod
    def check_settings(settings: PolicySettings) -> None:
        """Raises UserError for settings that the checkpoint doesn't take; called before anything is loaded."""

    @staticmethod
    @abstractmethod
    def check_fit(settings: PolicySettings, parts: Mapping[str, Any]) -> None:
        """Raises UserError for parts of different checkpoints, from which nothing sensible would come out."""

    @staticmethod
    @abstractmethod
    def windows(*tokenizers: Any) -> tuple[Window, ...]:
        """What the text encoders read of a prompt."""

    @classmethod
    def load_transformer(cls, settings: PolicySettings, dtype: torch.dtype | None) -> Any:
        return cls.loaders(settings, dtype)["transformer"]()

    @classmethod
    def load_parts(
        cls,
        settings: PolicySettings,
        device: torch.device,
        beside: torch.device,
        *,
        transformer: bool = True,
        texts: bool = True,
    ) -> dict[str, Any]:
        """The transformer on ``device``, the other parts on ``beside``, as far as asked for.

        Raises UserError naming all parts at fault, and all of their faults, in one line.
        """

        if transformer:
            cls.check_settings(settings)

        def placed(name: str, load: Callable[[], Any]) -> Any:
            part = load()
            return part.to(device if name == "transformer" else beside) if isinstance(part, nn.Module) else part

        wanted = {
            name: functools.partial(placed, name, load)
            for name, load in cls.loaders(settings, DTYPES[settings.dtype]).items()
            if (transformer if name == "transformer" else texts or name == "autoencoder")
        }
        parts = load_together(wanted)
        cls.check_fit(settings, parts)
        return parts

    @classmethod
    def _encoders(
        cls, settings: PolicySettings, parts: dict[str, Any], device: torch.device, store: EncodingStore | None
    ) -> tuple[LatentCodec, Prompts]:
        codec = cls.codec_type(parts.pop("autoencoder"), settings.reference_latents, store)
        return codec, StoredPrompts(store, device) if store else cls.prompts_type(*parts.values())

    @classmethod
    def from_checkpoint(
        cls,
        settings: PolicySettings,
        device: torch.device | str = "cpu",
        *,
        store: EncodingStore | None = None,
        spread: bool = False,
    ) -> Self:
        """The bare base: a diffusers folder, its name on the model hub, or single files where the family reads them.

        ``spread`` leaves the transformer on the CPU until ``shard`` is called. With a store its encodings take the
        place of the text encoders. Raises UserError as ``load_parts``.
        """
        cpu, device = torch.device("cpu"), torch.device(device)
        parts = cls.load_parts(
            settings, cpu if spread else device, cpu if settings.offload else device, texts=store is None
        )
        transformer = parts.pop("transformer")
        policy = cls(transformer, *cls._encoders(settings, parts, device, store), settings, device)
        policy.origin = Origin(settings.path, transformer_fingerprint(transformer))
        return policy

    @classmethod
    def make(cls, settings: PolicySettings, making: Making) -> Self:
        store = EncodingStore.open(Path(making.cache), cls.encodings_depend_on(settings)) if making.cache else None
        # An int8 base is made small on the CPU: whole, it may not fit where it is going.
        spread = making.spread or settings.quantise == "int8"
        policy = cls.from_checkpoint(settings, making.device, store=store, spread=spread)
        policy.origin = Origin(making.called or settings.path, policy.origin.base_hash)
        policy.prepare(settings, making.adapter, making.seed, spread=making.spread)
        return policy

    @classmethod
    def make_encoder(
        cls, settings: PolicySettings, out: Path, device: torch.device
    ) -> Callable[[Iterable[Batch], Callable[[int], object] | None], Encoded]:
        store = EncodingStore.create(out, cls.encodings_depend_on(settings))
        parts = cls.load_parts(settings, device, device, transformer=False)
        codec, prompts = cls._encoders(settings, parts, device, None)
        more = [Batch((), cls.also_encoded, (), ())] if cls.also_encoded else []
        prepare = functools.partial(_prepared, settings, codec.pixels_per_token)

        def encode(batches: Iterable[Batch], progress: Callable[[int], object] | None = None) -> Encoded:
            return encode_batches(itertools.chain(more, batches), prompts, codec, store, prepare, progress)

        return encode

    @classmethod
    def encodings_depend_on(cls, settings: PolicySettings) -> dict[str, Any]:
        """Fingerprints of the files of encoders and tokenizers, and what else encodings depend on; loads no model."""
        depends: dict[str, Any] = {}
        for encoder, (tokenizer, most) in cls.text_encoders.items():
            folder = cls.place(settings, tokenizer)
            depends[encoder] = part_fingerprint(cls.place(settings, encoder))
            depends[tokenizer] = tokenizer_fingerprint(folder)
            depends[f"{encoder}_length"] = tokenizer_length(folder, most)
        return depends | {
            "autoencoder": part_fingerprint(cls.place(settings, "autoencoder")),
            "reference_rule": settings.reference_rule,
            "reference_size": settings.reference_size,
            "reference_latents": settings.reference_latents,
            "dtype": settings.dtype,
        }

    @classmethod
    def make_cut(cls, settings: PolicySettings) -> Callable[[Sequence[str]], dict[str, list[int]]]:
        tokenizers = [read_tokenizer(cls.place(settings, part)) for part, _ in cls.text_encoders.values()]
        return functools.partial(cut_prompts, cls.windows(*tokenizers))

    @property
    def latent_shape(self) -> tuple[int, int]:
        return self.geometry.grid[0] * self.geometry.grid[1], self.geometry.channels

    def noise(self, seed: int) -> Tensor:
        return self.geometry.noise(seed)

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

    def placed(self, text_NLC: Tensor, reference_latents: Sequence[Tensor]) -> dict[str, Tensor]:
        """The fields of ``ReferencedCondition``; latents [N, c, h, w] of each reference become tokens with ids."""
        tokens = [pack(latent_NCHW) for latent_NCHW in reference_latents]
        empty_NLC = text_NLC.new_zeros(len(text_NLC), 0, self.geometry.channels)
        grids = [(latent.shape[-2] // 2, latent.shape[-1] // 2) for latent in reference_latents]
        fields = {
            "text_NLC": text_NLC,
            "reference_NLC": torch.cat(tokens, dim=1) if tokens else empty_NLC,
            "ids_LD": self.geometry.ids(grids),
        }
        return {name: value.to(self.device) for name, value in fields.items()}

    def forward(self, x_NLC: Tensor, sigma_N: Tensor, cond: RC, **inputs: Tensor | None) -> Tensor:
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
        return _prepared(self.settings, self.geometry.pixels, references)

    def encode_targets(self, pictures: Sequence[Image]) -> Tensor:
        """RGB pictures as x_NLC at sigma = 0 (fp32), stretched to the policy's size as UNO's training does."""
        size = (self.width, self.height)
        stretched = [p if p.size == size else p.resize(size, Resampling.LANCZOS) for p in pictures]
        with self._codec() as codec:
            return pack(codec.encode(stretched))

    def decode(self, x_NLC: Tensor) -> Tensor:
        with self._codec() as codec:
            return codec.decode(unpack(x_NLC, *self.geometry.grid))

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


def _prepared(settings: PolicySettings, pixels: int, references: Sequence[Image]) -> list[Image]:
    rule, one, several = settings.reference_rule, settings.reference_size, settings.several_size
    return prepare_references(references, rule, one, several, pixels)
