"""A checkpoint's models as stock classes and configurations, without weights: what ``cgrpo plan`` measures."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL.Image import Image
from torch import Tensor, nn

from cgrpo import hub
from cgrpo.hub import asset
from cgrpo.policies.checkpoints import part_folder, read_settings, read_weights, tokenizer_length
from cgrpo.policies.encodings.latents import LatentCodec
from cgrpo.policies.settings import PolicySettings
from cgrpo.section import TOYBOX_POLICIES


@dataclass(frozen=True)
class Model:
    """A stock model.

    stock     its class, as "library:Class" of diffusers or transformers
    config    the settings of that class
    tokens    of a prompt, where it is a text encoder
    assumed   why a published configuration stands in for the checkpoint's own, in words; "" where that was read
    """

    stock: str
    config: Mapping[str, Any]
    tokens: int = 0
    assumed: str = ""

    def empty(self) -> nn.Module:
        """The model on the meta device: every shape and no memory."""
        kind = _class_of(self.stock)
        with torch.device("meta"):
            if self.stock.startswith("diffusers:"):
                return kind.from_config(dict(self.config))
            return kind(kind.config_class.from_dict(dict(self.config)))


def _class_of(stock: str) -> Any:
    library, _, name = stock.partition(":")
    return getattr(importlib.import_module(library), name)


@dataclass(frozen=True)
class Stock:
    """Where a family's checkpoints have one of their models.

    stock       its class, as ``Model`` has it
    folder      of the checkpoint
    setting     the key of ``policy`` that names another place for it, "" for none
    tokenizer   folder of a text encoder's tokenizer
    most        tokens of a prompt, at most
    also, spare   as ``checkpoints.read_weights`` has them
    """

    stock: str
    folder: str
    setting: str = ""
    tokenizer: str = ""
    most: int = 0
    also: tuple[str, ...] = ()
    spare: str = "(?!)"

    def read(self, place: Path, dtype: torch.dtype | None, config: Any = None) -> Any:
        """The model in the folder ``place``, on the CPU; as ``read_weights``."""
        return read_weights(place, _class_of(self.stock), dtype, also=self.also, spare=self.spare, config=config)


def model_of(settings: PolicySettings, part: Stock, published: str, owner: str = "black-forest-labs") -> Model:
    """The model that the settings name, by its config.json; where there is no folder, that of the model ``published``
    by ``owner``.

    Nothing is downloaded, and no weight is read. Raises UserError for a folder without a config.json.
    """
    place = getattr(settings, part.setting, "")
    key, value = (part.setting, place) if place else ("path", settings.path)
    base = asset("policy") if value in TOYBOX_POLICIES else Path(value)
    folder = part_folder(base, part.folder, value)
    if place and not folder.is_dir():
        folder = base
    tokenizer = base if place else part_folder(base, part.tokenizer, value)
    tokens = tokenizer_length(tokenizer, part.most) if part.most else 0
    if folder.is_dir():
        return Model(part.stock, read_settings(folder / "config.json"), tokens)
    config = hub.read_settings(f"{owner}/{published}", f"{part.folder}/config.json") or {}
    why = f"policy.{key} {value!r} is no local folder: the sizes of {published} are assumed"
    return Model(part.stock, config, tokens, why)


class EmptyPolicy(NamedTuple):
    """A policy on the meta device whose encoders make numbers up, and its transformer."""

    policy: Any
    transformer: nn.Module


def text_tokens(models: Mapping[str, Model]) -> int:
    """Tokens of the text that the transformer sees: the first text encoder's."""
    return next(model.tokens for model in models.values() if model.tokens)


def empty_policy(
    family: Any, models: Mapping[str, Model], settings: PolicySettings, depth: Mapping[str, int]
) -> EmptyPolicy:
    """The policy of ``models`` whose transformer has ``depth`` blocks, by its configuration's keys. For counting.

    Raises UserError for sizes that it can't have.
    """
    model = models["transformer"]
    transformer: Any = replace(model, config={**model.config, **depth}).empty()
    for parameter in transformer.parameters():
        parameter.data = parameter.data.to(getattr(torch, settings.dtype))
    widths = transformer.config[family.text_width], transformer.config.get("pooled_projection_dim", 0)
    prompts = _BlankPrompts(text_tokens(models), *widths)
    codec = _blank(family.codec_type(models["autoencoder"].empty()))
    return EmptyPolicy(family(transformer, codec, prompts, settings, "cpu"), transformer)


class _BlankPrompts:
    """Text encoders of so many ``tokens`` whose encodings are made up."""

    modules = ()

    def __init__(self, tokens: int, width: int, pooled: int) -> None:
        self.tokens, self.width, self.pooled = tokens, width, pooled

    def encode(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        return torch.empty(len(prompts), self.tokens, self.width), torch.empty(len(prompts), self.pooled)


def _blank(codec: LatentCodec) -> LatentCodec:
    """The codec, with latents that are made up."""

    def encode(pictures: Sequence[Image]) -> Tensor:
        scale = codec.pixels_per_latent
        return torch.empty(len(pictures), codec.channels, pictures[0].height // scale, pictures[0].width // scale)

    codec.encode = encode
    return codec
