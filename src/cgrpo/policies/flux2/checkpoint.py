"""The parts of a FLUX.2-klein checkpoint: a diffusers folder, or the same on the model hub."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cgrpo.errors import UserError
from cgrpo.policies.checkpoints import (
    check_sizes,
    load_together,
    locate_autoencoder,
    locate_base,
    read_settings,
    read_tokenizer,
    read_weights,
)
from cgrpo.policies.fingerprint import tokenizer_length
from cgrpo.policies.flux2.text import LAYERS, LENGTH
from cgrpo.policies.models import Model, folder_of, model_in
from cgrpo.policies.settings import PolicySettings

# Qwen3's layers behind the last that is read, and the head over words
_SPARE = r"(model\.)?layers\.(2[7-9]|[3-9]\d)\..*|lm_head\.weight"


def load_parts(
    settings: PolicySettings,
    dtype: torch.dtype,
    device: torch.device,
    beside: torch.device,
    *,
    transformer: bool = True,
    texts: bool = True,
) -> dict[str, Any]:
    """The stock models: "transformer" on ``device``, "autoencoder", "qwen" and "tokenizer" on ``beside``.

    The autoencoder is in float32 (float64 with a float64 transformer). Qwen3 has the layers that are read and no last
    norm. A distilled checkpoint is reported on stderr. Raises UserError naming all parts at fault, and all of their
    faults, in one line.
    """
    loads: dict[str, Any] = {"autoencoder": lambda: load_autoencoder(settings, dtype).to(beside)}
    if transformer:
        loads = {"transformer": lambda: load_transformer(settings, dtype).to(device)} | loads
    if texts:
        loads |= {
            "qwen": lambda: _load_qwen(places(settings, "qwen"), dtype).to(beside),
            "tokenizer": lambda: _load_tokenizer(places(settings, "tokenizer")),
        }
    parts, base = load_together(loads), locate_base(settings)
    if transformer:
        _check_fit(base, parts)
        if is_distilled(base):
            reason = (
                "guidance has no effect on it, and its few steps are no training schedule; a base checkpoint trains"
            )
            print(f"cgrpo: {settings.path}: is step-distilled: {reason}", file=sys.stderr)
    return parts


def places(settings: PolicySettings, part: str) -> Path:
    """Where "transformer", "autoencoder", "qwen" or "tokenizer" lies on disk; loads nothing."""
    base = locate_base(settings)
    if part == "autoencoder":
        return locate_autoencoder(settings, base / "vae")
    return base / {"qwen": "text_encoder"}.get(part, part)


def load_transformer(settings: PolicySettings, dtype: torch.dtype) -> Any:
    """The stock transformer in ``dtype`` on the CPU."""
    from diffusers import Flux2Transformer2DModel

    return read_weights(places(settings, "transformer"), Flux2Transformer2DModel, {"torch_dtype": dtype})


def load_autoencoder(settings: PolicySettings, dtype: torch.dtype) -> Any:
    """The stock autoencoder in float32 (float64 where ``dtype`` is that) on the CPU."""
    from diffusers import AutoencoderKLFlux2

    exact = torch.promote_types(dtype, torch.float32)
    return read_weights(places(settings, "autoencoder"), AutoencoderKLFlux2, {"torch_dtype": exact})


def is_distilled(base: Path) -> bool:
    """Whether a folder's model_index.json says so; one without that file is taken for a base model."""
    index = base / "model_index.json"
    return index.is_file() and read_settings(index).get("is_distilled") is True


def _load_tokenizer(folder: Path) -> Any:
    tokenizer = read_tokenizer(folder)
    if not tokenizer.chat_template:
        raise UserError(f"{folder}: its tokenizer has no chat template; copy chat_template.jinja there, too")
    return tokenizer


def _load_qwen(folder: Path, dtype: torch.dtype) -> Any:
    """Qwen3 up to the last layer that is read: a quarter of its weights stay on disk, and the head over words."""
    from transformers import Qwen3Config, Qwen3Model

    settings: dict[str, Any] = {"dtype": dtype}
    table = read_settings(folder / "config.json")
    if table.get("model_type") == "qwen3":  # read_weights refuses any other
        if table.get("num_hidden_layers", 0) < LAYERS[-1]:
            layers = f"{table.get('num_hidden_layers')} layers and {LAYERS[-1]} are read"
            raise UserError(f"{folder}: has {layers}; give another")
        settings["config"] = Qwen3Config.from_dict(shortened(table))
    model = read_weights(folder, Qwen3Model, settings, also=("Qwen3ForCausalLM",), spare=_SPARE)
    model.norm = nn.Identity()  # it follows Qwen3's own last layer, not this one
    return model


def shortened(table: dict[str, Any]) -> dict[str, Any]:
    """The settings of a Qwen3 that ends with the last layer that is read."""
    types = table.get("layer_types")
    return table | {"num_hidden_layers": LAYERS[-1]} | ({"layer_types": types[: LAYERS[-1]]} if types else {})


def _check_fit(where: Path, parts: dict[str, Any]) -> None:
    """Raises UserError for parts of different checkpoints, from which nothing sensible would come out."""
    config, latent = parts["transformer"].config, parts["autoencoder"].config["latent_channels"]
    pairs = {"transformer in_channels and 4 * vae latent_channels": (config["in_channels"], 4 * latent)}
    if "qwen" in parts:
        sizes = config["joint_attention_dim"], len(LAYERS) * parts["qwen"].config.hidden_size
        pairs["transformer joint_attention_dim and 3 * text_encoder hidden_size"] = sizes
    check_sizes(where, pairs)
    if config["guidance_embeds"]:
        raise UserError(f"{where}: has a guidance embedding, so it is no FLUX.2-klein; give one of those")


# Configurations, for planning: the checkpoint's own, or those of the published models

_KLEIN = {"in_channels": 128, "mlp_ratio": 3.0, "guidance_embeds": False}
_QWEN = {"vocab_size": 151936, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128}
_SIZES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # of the transformer and of Qwen3
    "FLUX.2-klein-4B": (
        {"num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "joint_attention_dim": 7680},
        {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36},
    ),
    "FLUX.2-klein-9B": (
        {"num_layers": 8, "num_single_layers": 24, "num_attention_heads": 32, "joint_attention_dim": 12288},
        {"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36},
    ),
}


def flux2_models(settings: PolicySettings) -> dict[str, Model]:
    """Transformer, autoencoder and Qwen3, as far as it is read; nothing is downloaded, and no weight is read."""
    base, where = folder_of(settings.path), f"policy.path {settings.path!r}"
    name = "FLUX.2-klein-9B" if "9b" in settings.path.lower() else "FLUX.2-klein-4B"
    transformer, qwen = _SIZES[name]
    vae, vae_where = base / "vae", where
    if settings.autoencoder:
        vae, vae_where = folder_of(settings.autoencoder), f"policy.autoencoder {settings.autoencoder!r}"
    text = model_in(base / "text_encoder", "transformers:Qwen3Model", _QWEN | qwen, where, name)
    length = tokenizer_length(base / "tokenizer", LENGTH)
    return {
        "transformer": model_in(
            base / "transformer", "diffusers:Flux2Transformer2DModel", _KLEIN | transformer, where, name
        ),
        "autoencoder": model_in(vae, "diffusers:AutoencoderKLFlux2", {}, vae_where, "FLUX.2's autoencoder"),
        "qwen": replace(text, config=shortened(dict(text.config)), tokens=length),
    }
