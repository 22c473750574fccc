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

from cgrpo.hub import asset
from cgrpo.policies.checkpoints import read_settings
from cgrpo.policies.encodings.latents import PATCH, LatentCodec
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
        library, _, name = self.stock.partition(":")
        kind = getattr(importlib.import_module(library), name)
        with torch.device("meta"):
            if library == "diffusers":
                return kind.from_config(dict(self.config))
            return kind(kind.config_class.from_dict(dict(self.config)))


def folder_of(path: str) -> Path:
    """``path`` on disk, or the toy world's policy; nothing is fetched."""
    return asset("policy") if path in TOYBOX_POLICIES else Path(path)


def model_in(
    folder: Path, stock: str, published: Mapping[str, Any], setting: str, called: str, tokens: int = 0
) -> Model:
    """The model that ``folder``/config.json describes; where there is no such folder, the ``published`` one.

    ``setting`` names the folder in ``assumed``, and ``called`` the published model. Raises UserError for a folder
    without a config.json.
    """
    if (folder / "vae").is_dir():
        folder = folder / "vae"
    if folder.is_dir():
        return Model(stock, read_settings(folder / "config.json"), tokens)
    return Model(stock, published, tokens, f"{setting} is no local folder: the sizes of {called} are assumed")


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
    widths = transformer.config["joint_attention_dim"], transformer.config.get("pooled_projection_dim", 0)
    prompts = _BlankPrompts(text_tokens(models), *widths)
    codec = _BlankCodec(models["autoencoder"].empty())  # pyright: ignore[reportArgumentType]
    return EmptyPolicy(family(transformer, codec, prompts, settings, "cpu"), transformer)


class _BlankPrompts:
    """Text encoders of so many ``tokens`` whose encodings are made up."""

    modules = ()

    def __init__(self, tokens: int, width: int, pooled: int) -> None:
        self.tokens, self.width, self.pooled = tokens, width, pooled

    def encode(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        return torch.empty(len(prompts), self.tokens, self.width), torch.empty(len(prompts), self.pooled)


class _BlankCodec(LatentCodec):
    """An autoencoder whose latents are made up."""

    def encode(self, pictures: Sequence[Image]) -> Tensor:
        scale = self.pixels_per_token // PATCH
        return torch.empty(len(pictures), self.channels, pictures[0].height // scale, pictures[0].width // scale)
