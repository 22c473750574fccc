"""The parts of a FLUX.2-klein checkpoint: a diffusers folder, or the same on the model hub."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from cgrpo.errors import UserError
from cgrpo.hub import locate
from cgrpo.policies.checkpoints.loading import Checkpoint, locate_base
from cgrpo.policies.checkpoints.parts import read_tokenizer, read_weights
from cgrpo.policies.checkpoints.strict import Faults

if TYPE_CHECKING:
    from diffusers import AutoencoderKLFlux2, Flux2Transformer2DModel
    from transformers import PreTrainedTokenizerBase, Qwen3Model

CLASS = "Flux2Transformer2DModel"
TEXT_LAYERS = (9, 18, 27)  # how many of Qwen3's layers the three states have gone through that FLUX.2-klein reads


@dataclass(frozen=True)
class Flux2Parts:
    """What a checkpoint holds, on one device; the autoencoder in fp32 (in fp64 with an fp64 transformer).

    ``qwen`` has the layers that are read and no last norm. It and its tokenizer are None where not asked for.
    """

    transformer: Flux2Transformer2DModel
    vae: AutoencoderKLFlux2
    qwen: Qwen3Model | None
    tokenizer: PreTrainedTokenizerBase | None


def is_flux2(checkpoint: Checkpoint) -> bool:
    """Whether the transformer's config.json says that it is FLUX.2's; loads nothing. Raises UserError as ``locate``."""
    try:
        return _settings(locate_base(checkpoint) / "transformer" / "config.json").get("_class_name") == CLASS
    except UnreadableSettings:
        return False


def load_flux2_parts(
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    device: torch.device,
    *,
    text_encoder: bool = True,
    beside: torch.device | None = None,
) -> Flux2Parts:
    """Read every part: the transformer onto ``device``, the others onto ``beside`` (default: there too).

    A distilled checkpoint is said to be one, on stderr. Raises UserError naming all parts at fault, and all of their
    faults, in one line.
    """
    base, faults, beside = locate_base(checkpoint), Faults(), beside or device
    model = faults.kept(lambda: load_flux2_transformer(base, dtype).to(device))
    vae, qwen, tokenizer = _encoders(checkpoint, base, dtype, beside, faults, text_encoder)
    faults.tell()
    parts = Flux2Parts(model, vae, qwen, tokenizer)
    _check_fit(base, parts)
    if is_distilled(base):
        told = "guidance has no effect on it, and its few steps are no training schedule; a base checkpoint trains"
        print(f"cgrpo: {checkpoint.path}: is step-distilled: {told}", file=sys.stderr)
    return parts


def load_flux2_encoders(
    checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device
) -> tuple[AutoencoderKLFlux2, Qwen3Model, PreTrainedTokenizerBase]:
    """Autoencoder, text encoder and tokenizer, without the transformer. Raises UserError as ``load_flux2_parts``."""
    faults = Faults()
    parts = _encoders(checkpoint, locate_base(checkpoint), dtype, device, faults, True)
    faults.tell()
    return parts


def load_flux2_transformer(base: Path, dtype: torch.dtype) -> Any:
    """The transformer of a diffusers folder, on the CPU. Raises UserError as ``load_flux2_parts``."""
    from diffusers import Flux2Transformer2DModel

    return read_weights(base / "transformer", Flux2Transformer2DModel, {"torch_dtype": dtype})


def flux2_places(checkpoint: Checkpoint) -> dict[str, Path]:
    """Where autoencoder, qwen and tokenizer lie on disk; loads nothing."""
    base = locate_base(checkpoint)
    _refuse_foreign(checkpoint)
    return {
        "autoencoder": _autoencoder(checkpoint, base),
        "qwen": base / "text_encoder",
        "tokenizer": base / "tokenizer",
    }


def is_distilled(base: Path) -> bool:
    """Whether a folder's model_index.json says so; one without that file is taken for a base model."""
    index = base / "model_index.json"
    return index.is_file() and _settings(index).get("is_distilled") is True


def _encoders(
    checkpoint: Checkpoint, base: Path, dtype: torch.dtype, device: torch.device, faults: Faults, text_encoder: bool
) -> Any:
    from diffusers import AutoencoderKLFlux2

    faults.kept(lambda: _refuse_foreign(checkpoint))
    exact = torch.promote_types(dtype, torch.float32)
    vae = faults.kept(
        lambda: read_weights(_autoencoder(checkpoint, base), AutoencoderKLFlux2, {"torch_dtype": exact}).to(device)
    )
    if not text_encoder:
        return vae, None, None
    qwen = faults.kept(lambda: _qwen(base / "text_encoder", dtype).to(device))
    return vae, qwen, faults.kept(lambda: _tokenizer(base / "tokenizer"))


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    tokenizer = read_tokenizer(folder)
    if not tokenizer.chat_template:
        raise UserError(f"{folder}: its tokenizer has no chat template; copy chat_template.jinja there, too")
    return tokenizer


def _refuse_foreign(checkpoint: Checkpoint) -> None:
    for key, value in {"clip": checkpoint.clip, "t5": checkpoint.t5}.items():
        if value:
            raise UserError(f"policy.{key} = {value}: FLUX.2-klein has another text encoder; leave it out")


def _autoencoder(checkpoint: Checkpoint, base: Path) -> Path:
    place = locate(checkpoint.autoencoder, "folder") if checkpoint.autoencoder else base
    return place / "vae" if (place / "vae").is_dir() or not checkpoint.autoencoder else place


def _qwen(folder: Path, dtype: torch.dtype) -> Any:
    """Qwen3 up to the last layer that is read: a quarter of its weights stay on disk, and the head over words."""
    from transformers import Qwen3Config, Qwen3Model

    kept = TEXT_LAYERS[-1]
    table = _settings(folder / "config.json")
    settings: dict[str, Any] = {"dtype": dtype}
    if table.get("model_type") == "qwen3":  # of another, read_weights will tell
        if table.get("num_hidden_layers", 0) < kept:
            raise UserError(f"{folder}: has {table.get('num_hidden_layers')} layers and {kept} are read; give another")
        types = table.get("layer_types")
        settings["config"] = Qwen3Config.from_dict(
            table | {"num_hidden_layers": kept} | ({"layer_types": types[:kept]} if types else {})
        )
    model = read_weights(folder, Qwen3Model, settings)
    model.norm = nn.Identity()  # it follows Qwen3's own last layer, not this one
    return model


class UnreadableSettings(UserError):
    """A part's settings are missing or broken."""


def _settings(file: Path) -> dict[str, Any]:
    try:
        table = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UnreadableSettings(f"{file}: can't be read ({reason}); copy the checkpoint anew") from error
    return table if isinstance(table, dict) else {}


def _check_fit(where: Path, parts: Flux2Parts) -> None:
    """Sizes that must agree between parts, or nothing sensible comes out."""
    config = parts.transformer.config
    pairs = {
        "transformer in_channels and 4 * vae latent_channels": (
            config["in_channels"],
            4 * parts.vae.config["latent_channels"],
        )
    }
    if parts.qwen is not None:
        sizes = config["joint_attention_dim"], len(TEXT_LAYERS) * parts.qwen.config.hidden_size
        pairs["transformer joint_attention_dim and 3 * text_encoder hidden_size"] = sizes
    for what, (one, other) in pairs.items():
        if one != other:
            raise UserError(f"{where}: {what} differ ({one} and {other}); the parts are of different checkpoints")
    if config["guidance_embeds"]:
        raise UserError(f"{where}: has a guidance embedding, so it is no FLUX.2-klein; give one of those")
