"""The models of a FLUX.1 checkpoint by their configurations: the checkpoint's own, or FLUX.1-dev's as published."""

from __future__ import annotations

from cgrpo.policies.fingerprint import tokenizer_length
from cgrpo.policies.flux.text import CLIP_LENGTH, T5_LENGTH
from cgrpo.policies.models import Model, folder_of, model_in
from cgrpo.policies.settings import PolicySettings
from cgrpo.section import TOYBOX_POLICIES

_TRANSFORMER = {"guidance_embeds": True}  # the rest is the stock class's default
_AUTOENCODER = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 16,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
_CLIP = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
}
_T5 = {
    "vocab_size": 32128,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}


def flux_models(settings: PolicySettings) -> dict[str, Model]:
    """Transformer, autoencoder, T5 and CLIP by part; nothing is downloaded, and no weight is read."""
    base, where = folder_of(settings.path), f"policy.path {settings.path!r}"
    t5, clip = folder_of(settings.t5), folder_of(settings.clip)
    vae, vae_where = base / "vae", where
    if settings.autoencoder and settings.path not in TOYBOX_POLICIES:
        vae, vae_where = folder_of(settings.autoencoder), f"policy.autoencoder {settings.autoencoder!r}"
    return {
        "transformer": model_in(
            base / TOYBOX_POLICIES.get(settings.path, "transformer"),
            "diffusers:FluxTransformer2DModel",
            _TRANSFORMER,
            where,
            "FLUX.1-dev",
        ),
        "autoencoder": model_in(vae, "diffusers:AutoencoderKL", _AUTOENCODER, vae_where, "FLUX's autoencoder"),
        "t5": model_in(
            t5 if settings.t5 else base / "text_encoder_2",
            "transformers:T5EncoderModel",
            _T5,
            f"policy.t5 {settings.t5!r}" if settings.t5 else where,
            "T5-XXL's encoder",
            tokens=tokenizer_length(t5 if settings.t5 else base / "tokenizer_2", T5_LENGTH),
        ),
        "clip": model_in(
            clip if settings.clip else base / "text_encoder",
            "transformers:CLIPTextModel",
            _CLIP,
            f"policy.clip {settings.clip!r}" if settings.clip else where,
            "CLIP ViT-L/14's text encoder",
            tokens=tokenizer_length(clip if settings.clip else base / "tokenizer", CLIP_LENGTH),
        ),
    }
