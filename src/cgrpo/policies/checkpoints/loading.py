"""The parts of a FLUX checkpoint: a diffusers folder, the same on the model hub, or BFL's single files."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cgrpo.errors import UserError
from cgrpo.hub import locate
from cgrpo.policies.checkpoints.bfl import SCALING, SHIFT, read_autoencoder, read_transformer
from cgrpo.policies.checkpoints.parts import read_tokenizer, read_weights
from cgrpo.policies.checkpoints.strict import Faults
from cgrpo.text import read_text

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, FluxTransformer2DModel
    from transformers import CLIPTextModel, PreTrainedTokenizerBase, T5EncoderModel


@dataclass(frozen=True)
class Checkpoint:
    """Where a FLUX model lies. Each is a path or a name on the model hub (hub.py).

    path         a diffusers folder (transformer/ vae/ text_encoder/ ...), or BFL's transformer file
    autoencoder  BFL's file or a diffusers folder; default: the folder's vae/, or ae.safetensors beside the file
    clip, t5     a folder with a text encoder and its tokenizer; default: text_encoder/ and tokenizer/
                 (text_encoder_2/ and tokenizer_2/) in the folder, or beside the file
    transformer  the transformer's folder within the diffusers folder
    """

    path: str
    autoencoder: str = ""
    clip: str = ""
    t5: str = ""
    transformer: str = "transformer"


@dataclass(frozen=True)
class FluxParts:
    """What a checkpoint holds, on one device; the autoencoder in fp32 (in fp64 with an fp64 transformer).

    Text encoders and tokenizers are None where they weren't asked for.
    """

    transformer: FluxTransformer2DModel
    vae: AutoencoderKL
    clip: CLIPTextModel | None
    t5: T5EncoderModel | None
    clip_tokenizer: PreTrainedTokenizerBase | None
    t5_tokenizer: PreTrainedTokenizerBase | None


def load_parts(
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    device: torch.device,
    *,
    text_encoders: bool = True,
    beside: torch.device | None = None,
) -> FluxParts:
    """Read every part: the transformer onto ``device``, the others onto ``beside`` (default: there too).

    Raises UserError naming all parts at fault, and all of their faults, in one line.
    """
    base, faults, beside = locate_base(checkpoint), Faults(), beside or device
    model = faults.kept(lambda: _transformer(base, checkpoint.transformer, dtype, device))
    vae, clip, t5, clip_tokenizer, t5_tokenizer = _encoders(checkpoint, base, dtype, beside, faults, text_encoders)
    faults.tell()
    parts = FluxParts(model, vae, clip, t5, clip_tokenizer, t5_tokenizer)
    _check_fit(base, parts)
    return parts


def load_encoders(
    checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device
) -> tuple[AutoencoderKL, CLIPTextModel, T5EncoderModel, PreTrainedTokenizerBase, PreTrainedTokenizerBase]:
    """Autoencoder, CLIP, T5 and their tokenizers, without the transformer. Raises UserError as ``load_parts``."""
    faults = Faults()
    parts = _encoders(checkpoint, locate_base(checkpoint), dtype, device, faults, True)
    faults.tell()
    return parts


def part_places(checkpoint: Checkpoint) -> dict[str, Path]:
    """Where autoencoder, clip, t5, clip_tokenizer and t5_tokenizer lie on disk; loads nothing."""
    base = locate_base(checkpoint)
    return {"autoencoder": _autoencoder(checkpoint, base)} | _clip(checkpoint, base) | _t5(checkpoint, base)


def _clip(checkpoint: Checkpoint, base: Path) -> dict[str, Path]:
    if checkpoint.clip:
        folder = locate(checkpoint.clip, "folder")
        return {"clip": folder, "clip_tokenizer": folder}
    return {"clip": _home(base) / "text_encoder", "clip_tokenizer": _home(base) / "tokenizer"}


def _t5(checkpoint: Checkpoint, base: Path) -> dict[str, Path]:
    if checkpoint.t5:
        folder = locate(checkpoint.t5, "folder")
        return {"t5": folder, "t5_tokenizer": folder}
    return {"t5": _home(base) / "text_encoder_2", "t5_tokenizer": _home(base) / "tokenizer_2"}


def _home(base: Path) -> Path:
    """The folder of the parts beside the transformer."""
    return base if base.is_dir() else base.parent


def _transformer(base: Path, folder: str, dtype: torch.dtype, device: torch.device) -> FluxTransformer2DModel:
    from diffusers import FluxTransformer2DModel

    if base.is_file():
        return read_transformer(base, dtype).to(device)  # pyright: ignore
    return read_weights(base / folder, FluxTransformer2DModel, {"torch_dtype": dtype}).to(device)


def _encoders(
    checkpoint: Checkpoint, base: Path, dtype: torch.dtype, device: torch.device, faults: Faults, text_encoders: bool
) -> Any:
    """(autoencoder, CLIP, T5, CLIP's tokenizer, T5's), the text encoders None where they aren't asked for."""
    from diffusers import AutoencoderKL
    from transformers import CLIPTextModel, T5EncoderModel

    def autoencoder() -> AutoencoderKL:
        place, exact = _autoencoder(checkpoint, base), torch.promote_types(dtype, torch.float32)
        if place.is_file():
            return read_autoencoder(place, exact).to(device)  # pyright: ignore
        vae = read_weights(place, AutoencoderKL, {"torch_dtype": exact}).to(device)
        _refuse_unscaled(place)
        return vae

    vae = faults.kept(autoencoder)
    if not text_encoders:
        return (vae, *(None,) * 4)
    places = (faults.kept(lambda: _clip(checkpoint, base)) or {}) | (faults.kept(lambda: _t5(checkpoint, base)) or {})
    loads = {
        "clip": lambda place: read_weights(place, CLIPTextModel, {"dtype": dtype}).to(device),
        "t5": lambda place: read_weights(place, T5EncoderModel, {"dtype": dtype}).to(device),
        "clip_tokenizer": read_tokenizer,
        "t5_tokenizer": read_tokenizer,
    }
    found = {name: faults.kept(lambda load=loads[name], place=place: load(place)) for name, place in places.items()}
    return vae, *(found.get(name) for name in loads)


def locate_base(checkpoint: Checkpoint) -> Path:
    """The checkpoint's folder, or BFL's transformer file, on disk. Raises UserError if there is neither."""
    if checkpoint.path.endswith(".safetensors"):
        return locate(checkpoint.path, "file")
    base = locate(checkpoint.path, "folder")
    if not base.is_dir():
        raise UserError(f"{base}: no checkpoint; give a diffusers folder, or BFL's transformer as a safetensors file")
    return base


def _autoencoder(checkpoint: Checkpoint, base: Path) -> Path:
    if not checkpoint.autoencoder:
        place = base / "vae" if base.is_dir() else base.parent / "ae.safetensors"
        if base.is_file() and not place.is_file():
            raise UserError(f"{place}: missing; put it there, or say where the autoencoder is")
        return place
    wanted = "file" if checkpoint.autoencoder.endswith(".safetensors") else "folder"
    place = locate(checkpoint.autoencoder, wanted)
    return place / "vae" if (place / "vae").is_dir() else place


def _refuse_unscaled(vae: Path) -> None:
    """The library's own defaults are another family's, and leave no mark: what the file says must be there."""
    told = json.loads(read_text(vae / "config.json"))
    for key, none in (("scaling_factor", False), ("shift_factor", True)):
        value = told.get(key, "nothing")
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not ((number and (none or value != 0)) or (none and value is None)):
            raise UserError(
                f"{vae / 'config.json'}: {key} is {value}, and latents have no scale without; give the "
                f"autoencoder's own: FLUX.1's is {SHIFT if none else SCALING}"
            )


def _check_fit(where: Path, parts: FluxParts) -> None:
    """Sizes that must agree between parts, or nothing sensible comes out."""
    config = parts.transformer.config
    pairs = {
        "transformer in_channels and 4 * vae latent_channels": (
            config["in_channels"],
            4 * parts.vae.config["latent_channels"],
        )
    }
    if parts.t5 is not None:
        sizes = config["joint_attention_dim"], parts.t5.config.d_model
        pairs["transformer joint_attention_dim and text_encoder_2 d_model"] = sizes
    if parts.clip is not None:
        sizes = config["pooled_projection_dim"], parts.clip.config.hidden_size
        pairs["transformer pooled_projection_dim and text_encoder hidden_size"] = sizes
    for what, (one, other) in pairs.items():
        if one != other:
            raise UserError(f"{where}: {what} differ ({one} and {other}); the parts are of different checkpoints")
    if sum(config["axes_dims_rope"]) != config["attention_head_dim"]:
        raise UserError(
            f"{where}: axes_dims_rope {list(config['axes_dims_rope'])} do not add up to attention_head_dim "
            f"{config['attention_head_dim']}; mend transformer/config.json"
        )
    for name, model, tokenizer in (
        ("text_encoder", parts.clip, parts.clip_tokenizer),
        ("text_encoder_2", parts.t5, parts.t5_tokenizer),
    ):
        if model is not None and tokenizer is not None and len(tokenizer) > model.config.vocab_size:
            raise UserError(
                f"{where}: the tokenizer of {name} has {len(tokenizer)} words, and it knows {model.config.vocab_size}; "
                "it is another model's"
            )
    if parts.clip is None or parts.clip_tokenizer is None:
        return
    # CLIP pools at its end token. Where it finds none it silently pools the first token, the same for all prompts;
    # eos_token_id 2 is the old convention "the highest id is the end token".
    wanted, found = parts.clip.config.eos_token_id, parts.clip_tokenizer.eos_token_id
    if found != (len(parts.clip_tokenizer) - 1 if wanted == 2 else wanted):
        raise UserError(
            f"{where}: text_encoder pools at eos_token_id {wanted}, but the tokenizer ends prompts with {found}; "
            "mend eos_token_id in text_encoder/config.json"
        )
