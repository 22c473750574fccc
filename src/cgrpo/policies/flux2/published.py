"""The models of a FLUX.2-klein checkpoint by their configurations: the checkpoint's own, or klein's as published."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cgrpo.policies.fingerprint import tokenizer_length
from cgrpo.policies.flux2.checkpoint import shortened
from cgrpo.policies.flux2.text import LENGTH
from cgrpo.policies.models import Model, folder_of, model_in
from cgrpo.policies.settings import PolicySettings

_TRANSFORMER = {"in_channels": 128, "mlp_ratio": 3.0, "guidance_embeds": False}
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
            base / "transformer", "diffusers:Flux2Transformer2DModel", _TRANSFORMER | transformer, where, name
        ),
        "autoencoder": model_in(vae, "diffusers:AutoencoderKLFlux2", {}, vae_where, "FLUX.2's autoencoder"),
        "qwen": replace(text, config=shortened(dict(text.config)), tokens=length),
    }
