"""The parts of a FLUX checkpoint: a diffusers folder, the same on the model hub, or BFL's single files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from safetensors import SafetensorError

from cgrpo.errors import UserError
from cgrpo.hub import locate
from cgrpo.policies.checkpoints.bfl import read_autoencoder, read_transformer
from cgrpo.policies.checkpoints.strict import Faults, refuse_misfit, refuse_not_finite

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, FluxTransformer2DModel
    from transformers import CLIPTextModel, PreTrainedTokenizerBase, T5EncoderModel

Part = TypeVar("Part")

# Which classes a folder may say it holds, by the class it is loaded as.
_HOLDS = {
    "CLIPTextModel": ("CLIPTextModel", "CLIPTextModelWithProjection", "CLIPModel"),
    "T5EncoderModel": ("T5EncoderModel", "T5ForConditionalGeneration", "T5Model"),
}
# Weights that published checkpoints carry beside the text encoder; nothing else may be left over.
_SPARE = {
    # a whole CLIPModel: the picture half and the heads over both; position_ids: a buffer in files of before 2023
    "CLIPTextModel": r"(vision_model|visual_projection|text_projection)\..*|logit_scale|(.*\.)?position_ids",
    # a whole T5: the decoder half; embed_tokens: the shared table once more
    "T5EncoderModel": r"(decoder|lm_head)\..*|encoder\.embed_tokens\.weight",
}
_VOCABULARIES = ("tokenizer.json", "vocab.json", "spiece.model")


@dataclass(frozen=True)
class Checkpoint:
    """Where a FLUX model lies. Each is a path or a name on the model hub (hub.py).

    path         a diffusers folder (transformer/ vae/ text_encoder/ ...), or BFL's transformer file
    autoencoder  BFL's file or a diffusers folder; default: the folder's vae/, or ae.safetensors beside the file
    clip, t5     a folder with a text encoder and its tokenizer; default: text_encoder/ and tokenizer/
                 (text_encoder_2/ and tokenizer_2/) in the folder, or beside the file
    """

    path: str
    autoencoder: str = ""
    clip: str = ""
    t5: str = ""


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
    model = faults.kept(lambda: _transformer(base, dtype, device))
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


def _transformer(base: Path, dtype: torch.dtype, device: torch.device) -> FluxTransformer2DModel:
    from diffusers import FluxTransformer2DModel

    if base.is_file():
        return read_transformer(base, dtype).to(device)  # pyright: ignore
    return _weights(base / "transformer", FluxTransformer2DModel, {"torch_dtype": dtype}).to(device)


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
        return _weights(place, AutoencoderKL, {"torch_dtype": exact}).to(device)

    vae = faults.kept(autoencoder)
    if not text_encoders:
        return (vae, *(None,) * 4)
    places = (faults.kept(lambda: _clip(checkpoint, base)) or {}) | (faults.kept(lambda: _t5(checkpoint, base)) or {})
    loads = {
        "clip": lambda place: _weights(place, CLIPTextModel, {"dtype": dtype}).to(device),
        "t5": lambda place: _weights(place, T5EncoderModel, {"dtype": dtype}).to(device),
        "clip_tokenizer": _tokenizer,
        "t5_tokenizer": _tokenizer,
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


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    def load(part: Path) -> PreTrainedTokenizerBase:
        found = [name for name in _VOCABULARIES if (part / name).is_file()]
        if not found:  # AutoTokenizer would make an empty one
            raise UserError(f"{part}: holds no tokenizer ({', '.join(_VOCABULARIES)}); copy it there")
        if found == ["spiece.model"] and find_spec("sentencepiece") is None:
            raise UserError(f"{part}: its tokenizer is a spiece.model alone; `pip install sentencepiece` to read it")
        return AutoTokenizer.from_pretrained(part, local_files_only=True)

    return _read(folder, load)


def _read(part: Path, load: Callable[[Path], Part]) -> Part:
    """``load(part)``, its failures told in one line."""
    if not part.is_dir():
        raise UserError(f"{part}: this part of the checkpoint is missing; copy it whole, or say where the part is")
    try:
        return load(part)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{part}: can't be loaded ({reason}); only whole safetensors checkpoints are read") from error


def _weights(part: Path, kind: Any, dtype: dict[str, torch.dtype]) -> Any:
    """The model of class ``kind`` in ``part``; its weights are all there, all used, and all of the right shape."""

    def load(folder: Path) -> Any:
        name = kind.__name__
        config = json.loads((folder / "config.json").read_text())
        found = config.get("_class_name") or (config.get("architectures") or [name])[0]
        if found not in _HOLDS.get(name, (name,)):
            raise UserError(f"{folder}: holds a {found}, not a {name}; give a FLUX checkpoint")
        with _quiet():
            model, report = kind.from_pretrained(
                folder,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # told by the report, all at once
                low_cpu_mem_usage=True,
                **dtype,
            )
        spare = re.compile(_SPARE.get(name, "(?!)"))
        refuse_misfit(
            folder,
            missing=report["missing_keys"],
            unknown=[key for key in report["unexpected_keys"] if not spare.fullmatch(key)],
            misshapen=[
                f"{key} ({list(there)} instead of {list(here)})" for key, there, here in report["mismatched_keys"]
            ],
            cure="copy the checkpoint anew",
        )
        refuse_not_finite(folder, model.state_dict())
        return model

    return _read(part, load)


@contextmanager
def _quiet() -> Iterator[None]:
    """The libraries' own reports of what did not fit: ours are errors, and name less that doesn't matter."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    levels = [(log, log.get_verbosity()) for log in (diffusers_logging, transformers_logging)]
    for log, _ in levels:
        log.set_verbosity_error()
    try:
        yield
    finally:
        for log, level in levels:
            log.set_verbosity(level)


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
