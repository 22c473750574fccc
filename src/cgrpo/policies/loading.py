"""The parts of a FLUX checkpoint, read from a standard diffusers folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from cgrpo.errors import UserError

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, FluxTransformer2DModel
    from transformers import CLIPTextModel, PreTrainedTokenizerBase, T5EncoderModel


@dataclass(frozen=True)
class FluxParts:
    """What a FLUX folder holds, on one device; the autoencoder in fp32 (in fp64 with an fp64 transformer)."""

    transformer: FluxTransformer2DModel
    vae: AutoencoderKL
    clip: CLIPTextModel
    t5: T5EncoderModel
    clip_tokenizer: PreTrainedTokenizerBase
    t5_tokenizer: PreTrainedTokenizerBase


def load_parts(folder: Path, dtype: torch.dtype, device: torch.device) -> FluxParts:
    """Read every part from ``folder``. Raises UserError naming the part at fault."""
    # Heavy imports wait until something is loaded.
    from diffusers import AutoencoderKL, FluxTransformer2DModel
    from transformers import AutoTokenizer, CLIPTextModel, T5EncoderModel

    if not folder.is_dir():
        raise UserError(f"{folder}: no such checkpoint folder; give a diffusers folder with transformer/, vae/, ...")

    def weights(name: str, kind: Any, dtype_name: str, part_dtype: torch.dtype) -> Any:
        return _weights(folder / name, kind, {dtype_name: part_dtype}).to(device)

    def tokenizer(name: str) -> Any:
        return _read(folder / name, lambda part: AutoTokenizer.from_pretrained(part, local_files_only=True))

    parts = FluxParts(
        transformer=weights("transformer", FluxTransformer2DModel, "torch_dtype", dtype),
        vae=weights("vae", AutoencoderKL, "torch_dtype", torch.promote_types(dtype, torch.float32)),
        clip=weights("text_encoder", CLIPTextModel, "dtype", dtype),
        t5=weights("text_encoder_2", T5EncoderModel, "dtype", dtype),
        clip_tokenizer=tokenizer("tokenizer"),
        t5_tokenizer=tokenizer("tokenizer_2"),
    )
    _check_fit(folder, parts)
    return parts


def _read(part: Path, load: Callable[[Path], Any]) -> Any:
    """``load(part)``, its failures told in one line."""
    if not part.is_dir():
        raise UserError(f"{part}: this part of the checkpoint is missing; copy the whole diffusers folder")
    try:
        return load(part)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{part}: can't be loaded ({reason}); only whole safetensors checkpoints are read") from error


def _weights(part: Path, kind: Any, dtype: dict[str, torch.dtype]) -> Any:
    """The model of class ``kind`` in ``part``; weights that the file lacks are an error, never random."""

    def load(folder: Path) -> Any:
        config = json.loads((folder / "config.json").read_text())
        found = config.get("_class_name") or (config.get("architectures") or [kind.__name__])[0]
        if found not in (kind.__name__, kind.__name__ + "WithProjection"):
            raise UserError(f"{folder}: holds a {found}, not a {kind.__name__}; give a FLUX checkpoint folder")
        model, report = kind.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, output_loading_info=True, **dtype
        )
        if missing := sorted(report["missing_keys"]):
            raise UserError(f"{folder}: lacks {len(missing)} weights, such as {missing[0]}; copy the checkpoint anew")
        return model

    return _read(part, load)


def _check_fit(folder: Path, parts: FluxParts) -> None:
    """Sizes that must agree between parts, or nothing sensible comes out."""
    config = parts.transformer.config
    pairs = {
        "transformer in_channels and 4 * vae latent_channels": (
            config["in_channels"],
            4 * parts.vae.config["latent_channels"],
        ),
        "transformer joint_attention_dim and text_encoder_2 d_model": (
            config["joint_attention_dim"],
            parts.t5.config.d_model,
        ),
        "transformer pooled_projection_dim and text_encoder hidden_size": (
            config["pooled_projection_dim"],
            parts.clip.config.hidden_size,
        ),
    }
    for what, (one, other) in pairs.items():
        if one != other:
            raise UserError(f"{folder}: {what} differ ({one} and {other}); the parts are of different checkpoints")
    # CLIP pools at its end token. Where it finds none it silently pools the first token, the same for all prompts;
    # eos_token_id 2 is the old convention "the highest id is the end token".
    wanted, found = parts.clip.config.eos_token_id, parts.clip_tokenizer.eos_token_id
    if found != (len(parts.clip_tokenizer) - 1 if wanted == 2 else wanted):
        raise UserError(
            f"{folder}: text_encoder pools at eos_token_id {wanted}, but the tokenizer ends prompts with {found}; "
            "mend eos_token_id in text_encoder/config.json"
        )
