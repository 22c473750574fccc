"""The parts of a Qwen-Image-2.1 checkpoint: a diffusers folder, or the same on the model hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cgrpo.errors import UserError
from cgrpo.policies.checkpoints import check_sizes, locate_base, model_index
from cgrpo.policies.models import Model, Stock, model_of
from cgrpo.policies.pictured import LENGTH
from cgrpo.policies.settings import PolicySettings

PIPELINE = "QwenImage21Pipeline"
STOCK = {
    "transformer": Stock("diffusers:QwenImage21Transformer2DModel", "transformer"),
    "autoencoder": Stock("diffusers:AutoencoderKLQwenImage21", "vae", "autoencoder"),
    "qwen": Stock(
        "transformers:Qwen3VLModel",
        "text_encoder",
        tokenizer="processor",
        most=LENGTH,
        also=("Qwen3VLForConditionalGeneration",),
        spare=r"lm_head\.weight",  # the head over words
    ),
}


def check_settings(settings: PolicySettings) -> None:
    """Raises UserError for a single file, for a folder of another pipeline's, and for a step-distilled one."""
    base, cure = locate_base(settings), "give Qwen/Qwen-Image-2.1; a LoRA belongs into policy.start"
    if base.is_file():
        raise UserError(f"{base}: single files of Qwen-Image-2.1 are not read", cure)
    index = model_index(base)
    if (pipeline := index.get("_class_name", PIPELINE)) != PIPELINE:
        raise UserError(f"{base}: is a {pipeline}, not a {PIPELINE}", cure)
    if index.get("sample_sigmas"):
        raise UserError(f"{base}: is step-distilled, and its few steps are no training schedule", cure)


def read_qwen(place: Path, dtype: torch.dtype | None) -> Any:
    """Qwen3-VL without the head over words and the last norm: the transformer reads the states before it."""
    model = STOCK["qwen"].read(place, dtype)
    model.language_model.norm = nn.Identity()
    return model


def check_fit(settings: PolicySettings, parts: Mapping[str, Any]) -> None:
    """Raises UserError for parts of different checkpoints, and for a transformer whose prefix sees the time."""
    if "transformer" not in parts:
        return
    where, config = locate_base(settings), parts["transformer"].config
    pairs = {"transformer in_channels and vae z_dim": (config["in_channels"], parts["autoencoder"].config["z_dim"])}
    if "qwen" in parts:
        sizes = config["context_in_dim"], parts["qwen"].config.text_config.hidden_size
        pairs["transformer context_in_dim and text_encoder hidden_size"] = sizes
    check_sizes(where, pairs)
    if not config["causal_condition"]:
        raise UserError(f"{where}: its transformer has causal_condition = false; Qwen-Image-2.1 has true")


def qwen21_models(settings: PolicySettings) -> dict[str, Model]:
    """What ``cgrpo plan`` measures."""
    return {part: model_of(settings, stock, "Qwen-Image-2.1", "Qwen") for part, stock in STOCK.items()}
