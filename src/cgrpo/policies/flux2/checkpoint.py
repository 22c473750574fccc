"""The parts of a FLUX.2-klein checkpoint: a diffusers folder, or the same on the model hub."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cgrpo.errors import UserError
from cgrpo.policies.checkpoints import check_sizes, locate_base, model_index, read_settings
from cgrpo.policies.flux2.inputs import LAYERS, LENGTH, windows
from cgrpo.policies.models import Model, Stock, model_of
from cgrpo.policies.settings import PolicySettings

STOCK = {
    "transformer": Stock("diffusers:Flux2Transformer2DModel", "transformer"),
    "autoencoder": Stock("diffusers:AutoencoderKLFlux2", "vae", "autoencoder"),
    "qwen": Stock(
        "transformers:Qwen3Model",
        "text_encoder",
        tokenizer="tokenizer",
        most=LENGTH,
        also=("Qwen3ForCausalLM",),
        # the layers behind the last that is read, and the head over words
        spare=r"(model\.)?layers\.(2[7-9]|[3-9]\d)\..*|lm_head\.weight",
    ),
}
TEXT_ENCODERS = {"qwen": ("tokenizer", LENGTH)}


def check_settings(settings: PolicySettings) -> None:
    """Report a distilled checkpoint on stderr. Raises UserError for guidance, which it doesn't take."""
    base = locate_base(settings)
    if base.is_file():
        raise UserError(
            f"{base}: FLUX.2's single files are not read", "give a diffusers folder, or its name on the hub"
        )
    if model_index(base).get("is_distilled") is not True:
        return
    for key, scale in {"guidance": settings.guidance, "evaluation_guidance": settings.evaluation_guidance}.items():
        if scale not in (0, 1):
            fault = f"policy.{key} = {scale:g}: this checkpoint is distilled and takes no guidance"
            raise UserError(fault, f"set policy.{key}=1")
    reason = "guidance has no effect on it, and its few steps are no training schedule; a base checkpoint trains"
    print(f"cgrpo: {settings.path}: is step-distilled: {reason}", file=sys.stderr)


def check_template(tokenizer: Any) -> None:
    if not tokenizer.chat_template:
        raise ValueError("it has no chat template: copy chat_template.jinja there, too")
    (window,) = windows(tokenizer)
    if "a red cube" not in window.wrapped("a red cube"):
        raise ValueError("its chat template leaves the prompt out: copy chat_template.jinja anew")


def read_qwen(folder: Path, dtype: torch.dtype | None) -> Any:
    """Qwen3 up to the last layer that is read: a quarter of its weights stay on disk, and the head over words."""
    from transformers import Qwen3Config

    config = None
    table = read_settings(folder / "config.json")
    if table.get("model_type") == "qwen3":  # read_weights refuses any other
        if table.get("num_hidden_layers", 0) < LAYERS[-1]:
            layers = f"{table.get('num_hidden_layers')} layers and {LAYERS[-1]} are read"
            raise UserError(f"{folder}: has {layers}; give another")
        config = Qwen3Config.from_dict(shortened(table))
    model = STOCK["qwen"].read(folder, dtype, config)
    model.norm = nn.Identity()  # it follows Qwen3's own last layer, not this one
    return model


def shortened(table: dict[str, Any]) -> dict[str, Any]:
    """The settings of a Qwen3 that ends with the last layer that is read."""
    types = table.get("layer_types")
    return table | {"num_hidden_layers": LAYERS[-1]} | ({"layer_types": types[: LAYERS[-1]]} if types else {})


def check_fit(settings: PolicySettings, parts: Mapping[str, Any]) -> None:
    """Raises UserError for parts of different checkpoints, from which nothing sensible would come out."""
    if "transformer" not in parts:
        return
    where = locate_base(settings)
    config, latent = parts["transformer"].config, parts["autoencoder"].config["latent_channels"]
    pairs = {"transformer in_channels and 4 * vae latent_channels": (config["in_channels"], 4 * latent)}
    if "qwen" in parts:
        sizes = config["joint_attention_dim"], len(LAYERS) * parts["qwen"].config.hidden_size
        pairs["transformer joint_attention_dim and 3 * text_encoder hidden_size"] = sizes
    check_sizes(where, pairs)
    if config["guidance_embeds"]:
        raise UserError(f"{where}: has a guidance embedding, so it is no FLUX.2-klein; give one of those")


def flux2_models(settings: PolicySettings) -> dict[str, Model]:
    """What ``cgrpo plan`` measures: of Qwen3, as far as it is read."""
    called = "FLUX.2-klein-base-9B" if "9b" in settings.path.lower() else "FLUX.2-klein-base-4B"
    models = {part: model_of(settings, stock, called) for part, stock in STOCK.items()}
    return models | {"qwen": replace(models["qwen"], config=shortened(dict(models["qwen"].config)))}
