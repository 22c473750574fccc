"""The parts of a FLUX.1 checkpoint: a diffusers folder, the same on the model hub, or BFL's single files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cgrpo.errors import UserError
from cgrpo.hub import locate
from cgrpo.policies.checkpoints import (
    check_sizes,
    load_together,
    locate_autoencoder,
    locate_base,
    locate_transformer,
    read_tokenizer,
    read_weights,
)
from cgrpo.policies.fingerprint import tokenizer_length
from cgrpo.policies.flux.single_file import SCALING, SHIFT, read_autoencoder, read_transformer
from cgrpo.policies.flux.text import CLIP_LENGTH, T5_LENGTH
from cgrpo.policies.models import Model, folder_of, model_in
from cgrpo.policies.settings import PolicySettings
from cgrpo.section import TOYBOX_POLICIES
from cgrpo.text import read_text

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, FluxTransformer2DModel

TEXT_PARTS = ("clip", "t5", "clip_tokenizer", "t5_tokenizer")
# Text encoders of whole models are read, too.
_CLIP = {
    "also": ("CLIPTextModelWithProjection", "CLIPModel"),
    # the picture half and the heads over both; position_ids: a buffer in files of before 2023
    "spare": r"(vision_model|visual_projection|text_projection)\..*|logit_scale|(.*\.)?position_ids",
}
_T5 = {
    "also": ("T5ForConditionalGeneration", "T5Model"),
    # the decoder half; embed_tokens: the shared table once more
    "spare": r"(decoder|lm_head)\..*|encoder\.embed_tokens\.weight",
}


def load_parts(
    settings: PolicySettings,
    dtype: torch.dtype,
    device: torch.device,
    beside: torch.device,
    *,
    transformer: bool = True,
    texts: bool = True,
) -> dict[str, Any]:
    """The stock models: "transformer" on ``device``, "autoencoder" and TEXT_PARTS on ``beside``, as far as asked for.

    The autoencoder is in float32 (float64 with a float64 transformer).
    Raises UserError naming all parts at fault, and all of their faults, in one line.
    """
    from transformers import CLIPTextModel, T5EncoderModel

    loads: dict[str, Any] = {"autoencoder": lambda: load_autoencoder(settings, dtype).to(beside)}  # pyright: ignore
    if transformer:
        loads = {"transformer": lambda: load_transformer(settings, dtype).to(device)} | loads  # pyright: ignore
    if texts:
        loads |= {
            "clip": lambda: read_weights(places(settings, "clip"), CLIPTextModel, {"dtype": dtype}, **_CLIP).to(beside),
            "t5": lambda: read_weights(places(settings, "t5"), T5EncoderModel, {"dtype": dtype}, **_T5).to(beside),
            "clip_tokenizer": lambda: read_tokenizer(places(settings, "clip_tokenizer")),
            "t5_tokenizer": lambda: read_tokenizer(places(settings, "t5_tokenizer")),
        }
    parts = load_together(loads)
    _check_fit(locate_base(settings), parts)
    return parts


def places(settings: PolicySettings, part: str) -> Path:
    """Where "transformer", "autoencoder", "clip", "t5" or a tokenizer lies on disk; loads nothing."""
    base = locate_base(settings)
    home = base if base.is_dir() else base.parent
    if part in ("clip", "clip_tokenizer") and settings.clip:
        return locate(settings.clip, "folder")
    if part in ("t5", "t5_tokenizer") and settings.t5:
        return locate(settings.t5, "folder")
    if part == "transformer":
        return locate_transformer(settings)
    if part == "autoencoder":
        place = locate_autoencoder(settings, home / ("vae" if base.is_dir() else "ae.safetensors"))
        if base.is_file() and not place.exists():
            raise UserError(f"{place}: missing", "put it there, or set policy.autoencoder")
        return place
    names = {
        "clip": "text_encoder",
        "t5": "text_encoder_2",
        "clip_tokenizer": "tokenizer",
        "t5_tokenizer": "tokenizer_2",
    }
    return home / names[part]


def load_transformer(settings: PolicySettings, dtype: torch.dtype) -> FluxTransformer2DModel:
    """The stock transformer in ``dtype`` on the CPU."""
    from diffusers import FluxTransformer2DModel

    place = places(settings, "transformer")
    if place.is_file():
        return read_transformer(place, dtype)
    return read_weights(place, FluxTransformer2DModel, {"torch_dtype": dtype})


def load_autoencoder(settings: PolicySettings, dtype: torch.dtype) -> AutoencoderKL:
    """The stock autoencoder in float32 (float64 where ``dtype`` is that) on the CPU."""
    from diffusers import AutoencoderKL

    place, exact = places(settings, "autoencoder"), torch.promote_types(dtype, torch.float32)
    if place.is_file():
        return read_autoencoder(place, exact)
    vae = read_weights(place, AutoencoderKL, {"torch_dtype": exact})
    _refuse_unscaled(place)
    return vae


def _refuse_unscaled(vae: Path) -> None:
    """Raises UserError for a scale or shift that the file leaves out: the library's defaults are another family's."""
    config = json.loads(read_text(vae / "config.json"))
    for key, none in (("scaling_factor", False), ("shift_factor", True)):
        value = config.get(key, "nothing")
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not ((number and (none or value != 0)) or (none and value is None)):
            raise UserError(
                f"{vae / 'config.json'}: {key} is {value}, and latents have no scale without; give the "
                f"autoencoder's own: FLUX.1's is {SHIFT if none else SCALING}"
            )


def _check_fit(where: Path, parts: dict[str, Any]) -> None:
    """Raises UserError for parts of different checkpoints, from which nothing sensible would come out."""
    transformer, clip, t5 = parts.get("transformer"), parts.get("clip"), parts.get("t5")
    if transformer is not None:
        config, latent = transformer.config, parts["autoencoder"].config["latent_channels"]
        pairs = {"transformer in_channels and 4 * vae latent_channels": (config["in_channels"], 4 * latent)}
        if clip and t5:
            pairs |= {
                "transformer joint_attention_dim and text_encoder_2 d_model": (
                    config["joint_attention_dim"],
                    t5.config.d_model,
                ),
                "transformer pooled_projection_dim and text_encoder hidden_size": (
                    config["pooled_projection_dim"],
                    clip.config.hidden_size,
                ),
            }
        check_sizes(where, pairs)
        if sum(config["axes_dims_rope"]) != config["attention_head_dim"]:
            raise UserError(
                f"{where}: axes_dims_rope {list(config['axes_dims_rope'])} do not add up to attention_head_dim "
                f"{config['attention_head_dim']}",
                "fix transformer/config.json",
            )
    if not (clip and t5):
        return
    for name, model, tokenizer in (
        ("text_encoder", clip, parts["clip_tokenizer"]),
        ("text_encoder_2", t5, parts["t5_tokenizer"]),
    ):
        if len(tokenizer) > model.config.vocab_size:
            raise UserError(
                f"{where}: the tokenizer of {name} has {len(tokenizer)} words, and it knows {model.config.vocab_size}; "
                "it is another model's"
            )
    # CLIP pools at its end token. Where it finds none it silently pools the first token, the same for all prompts;
    # eos_token_id 2 is the old convention "the highest id is the end token".
    tokenizer, wanted = parts["clip_tokenizer"], clip.config.eos_token_id
    if tokenizer.eos_token_id != (len(tokenizer) - 1 if wanted == 2 else wanted):
        raise UserError(
            f"{where}: text_encoder pools at eos_token_id {wanted}, but the tokenizer ends prompts with "
            f"{tokenizer.eos_token_id}",
            "fix eos_token_id in text_encoder/config.json",
        )


def save_pipeline(settings: PolicySettings, transformer: FluxTransformer2DModel, folder: Path) -> None:
    """Write ``transformer`` and the settings' other parts into ``folder`` as a FluxPipeline.

    BFL's files come without a scheduler's settings, which are FLUX.1-dev's or -schnell's.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline

    cpu, scheduler = torch.device("cpu"), locate_base(settings) / "scheduler"
    parts = load_parts(settings, transformer.dtype, cpu, cpu, transformer=False)
    if scheduler.is_dir():
        steps = FlowMatchEulerDiscreteScheduler.from_pretrained(scheduler, local_files_only=True)
    elif transformer.config["guidance_embeds"]:
        steps = FlowMatchEulerDiscreteScheduler(
            shift=3.0, use_dynamic_shifting=True, base_image_seq_len=256, max_image_seq_len=4096
        )
    else:
        steps = FlowMatchEulerDiscreteScheduler(shift=1.0)
    texts = (parts[name] for name in ("clip", "clip_tokenizer", "t5", "t5_tokenizer"))
    FluxPipeline(steps, parts["autoencoder"], *texts, transformer).save_pretrained(folder)  # pyright: ignore


# Configurations, for planning: the checkpoint's own, or those of the published models

_DEV_TRANSFORMER = {"guidance_embeds": True}  # the rest is the stock class's default
_DEV_AUTOENCODER = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 16,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
_DEV_CLIP = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
}
_DEV_T5 = {
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
            _DEV_TRANSFORMER,
            where,
            "FLUX.1-dev",
        ),
        "autoencoder": model_in(vae, "diffusers:AutoencoderKL", _DEV_AUTOENCODER, vae_where, "FLUX's autoencoder"),
        "t5": model_in(
            t5 if settings.t5 else base / "text_encoder_2",
            "transformers:T5EncoderModel",
            _DEV_T5,
            f"policy.t5 {settings.t5!r}" if settings.t5 else where,
            "T5-XXL's encoder",
            tokens=tokenizer_length(t5 if settings.t5 else base / "tokenizer_2", T5_LENGTH),
        ),
        "clip": model_in(
            clip if settings.clip else base / "text_encoder",
            "transformers:CLIPTextModel",
            _DEV_CLIP,
            f"policy.clip {settings.clip!r}" if settings.clip else where,
            "CLIP ViT-L/14's text encoder",
            tokens=tokenizer_length(clip if settings.clip else base / "tokenizer", CLIP_LENGTH),
        ),
    }
