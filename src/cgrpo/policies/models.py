"""A checkpoint's models as stock classes and configurations, without weights: what ``cgrpo plan`` measures."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cgrpo.hub import asset
from cgrpo.policies.checkpoints import read_settings
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
