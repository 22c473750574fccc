"""How a policy is made of its checkpoint's parts: transformer, autoencoder, text encoders, or stored encodings."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import torch
from PIL.Image import Image
from torch import nn

from cgrpo.errors import UserError
from cgrpo.hub import locate
from cgrpo.policies.adapters.files import Origin
from cgrpo.policies.base import Making
from cgrpo.policies.checkpoints import (
    load_together,
    locate_autoencoder,
    locate_base,
    locate_transformer,
    part_folder,
    read_tokenizer,
    tokenizer_length,
)
from cgrpo.policies.conditions import TensorCondition
from cgrpo.policies.encodings.latents import Geometry, LatentCodec
from cgrpo.policies.encodings.preprocess import prepare_references
from cgrpo.policies.encodings.store import Encoded, EncodingStore, StoredPrompts, encode_batches
from cgrpo.policies.encodings.text import Prompts, Text, Window, cut_prompts
from cgrpo.policies.fingerprint import part_fingerprint, tokenizer_fingerprint, transformer_fingerprint
from cgrpo.policies.lora import LoraPolicy
from cgrpo.policies.models import Model, Stock, model_of
from cgrpo.policies.settings import PolicySettings
from cgrpo.types import Batch

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}

RC = TypeVar("RC", bound=TensorCondition)


class CheckpointPolicy(LoraPolicy[RC]):
    """A diffusers transformer over latent tokens, with its autoencoder and text encoders.

    settings   sizes, guidance and how references are prepared; the rest of the table is for ``make``
    device     where all computing is done; default: where the transformer is

    Everything is frozen on construction; ``add_adapter`` or ``load_adapter`` adds what trains. ``transformer`` may
    be replaced by a wrapped one: its configuration is read only here. Codec and prompt encoder may be None where
    the policy is driven by tensors alone. A family adds what is abstract here.
    """

    input_layer: ClassVar[str] = "x_embedder"  # the transformer's first, whose dtype and device are the base's
    text_width: ClassVar[str] = "joint_attention_dim"  # the key of the transformer's configuration for the text's width
    also_encoded: ClassVar[tuple[str, ...]] = ()  # prompts that are not the tasks', such as a negative one
    text_per_reference: ClassVar[int] = 0  # tokens that a reference adds to what the text encoder reads, for `plan`
    codec_type: ClassVar[type[LatentCodec]] = LatentCodec
    prompts_type: ClassVar[Callable[..., Prompts]]  # made of the text parts, in the order of ``loaders``
    stock: ClassVar[Mapping[str, Stock]]  # its models: "transformer", "autoencoder", and the text encoders
    published: ClassVar[str] = ""  # whose sizes ``models`` assumes where the checkpoint is no local folder
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
        first = transformer.get_submodule(self.input_layer).weight
        self.dtype = first.dtype
        self.device = torch.device(device or first.device)
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

    @classmethod
    def place(cls, settings: PolicySettings, part: str) -> Path:
        """Where a model or a tokenizer of the checkpoint lies on disk; loads nothing."""
        base = locate_base(settings)
        home = base if base.is_dir() else base.parent
        if part == "transformer":
            return locate_transformer(settings)
        if part == "autoencoder":
            place = locate_autoencoder(settings, home / ("vae" if base.is_dir() else "ae.safetensors"))
            if base.is_file() and not place.exists():
                raise UserError(f"{place}: missing", "put it there, or set policy.autoencoder")
            return place
        encoder = next(name for name, (tokenizer, _) in cls.text_encoders.items() if part in (name, tokenizer))
        stock = cls.stock[encoder]
        if elsewhere := getattr(settings, stock.setting, ""):
            return locate(elsewhere, "folder")
        return part_folder(home, stock.folder if part == encoder else stock.tokenizer, settings.path)

    @classmethod
    def models(cls, settings: PolicySettings) -> dict[str, Model]:
        return {part: model_of(settings, stock, cls.published) for part, stock in cls.stock.items()}

    @classmethod
    def read_model(cls, settings: PolicySettings, part: str, dtype: torch.dtype | None) -> Any:
        """A model of ``stock`` on the CPU, in ``dtype``; None leaves each weight as it is on disk."""
        return cls.stock[part].read(cls.place(settings, part), dtype)

    @staticmethod
    def check_tokenizer(tokenizer: Any) -> None:
        """Raises anything for a tokenizer that will not do."""

    @classmethod
    def loaders(cls, settings: PolicySettings, dtype: torch.dtype | None) -> dict[str, Callable[[], Any]]:
        """What loads each part onto the CPU: "transformer", "autoencoder", then what ``prompts_type`` takes.

        ``dtype`` is as ``read_model`` has it. The autoencoder is in float32 at least.
        """
        exact = torch.promote_types(dtype, torch.float32) if dtype else None
        dtypes = {"transformer": dtype, "autoencoder": exact, **dict.fromkeys(cls.text_encoders, dtype)}
        models = {part: functools.partial(cls.read_model, settings, part, own) for part, own in dtypes.items()}
        tokenizers = {
            part: lambda part=part: read_tokenizer(cls.place(settings, part), cls.check_tokenizer)
            for part, _ in cls.text_encoders.values()
        }
        return models | tokenizers

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
        prepare = functools.partial(prepared, settings, codec.pixels_per_token)

        def encode(batches: Iterable[Batch], progress: Callable[[int], object] | None = None) -> Encoded:
            read_texts = functools.partial(cls.read_texts, settings)
            return encode_batches(batches, prompts, codec, store, prepare, progress, read_texts)

        return encode

    @classmethod
    def read_texts(cls, settings: PolicySettings, batch: Batch) -> Sequence[Text]:
        """What the text encoders read for a batch: its prompts in order, then ``also_encoded``."""
        return [*batch.prompts, *cls.also_encoded]

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


def prepared(settings: PolicySettings, pixels: int, references: Sequence[Image]) -> list[Image]:
    """A task's references as the autoencoder sees them; ``pixels`` of a token's side."""
    rule, one, several = settings.reference_rule, settings.reference_size, settings.several_size
    return prepare_references(references, rule, one, several, pixels)
