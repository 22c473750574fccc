"""What stored encodings depend on, told from files alone: no model is loaded."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgrpo.errors import UserError
from cgrpo.policies.encodings.latents import Posterior
from cgrpo.policies.encodings.preprocess import Rule
from cgrpo.policies.encodings.text import CLIP_LENGTH, T5_LENGTH
from cgrpo.policies.fingerprint import file_fingerprint

FLUX2_LENGTH = 512  # tokens of a prompt, the chat template's included
FORMAT = 1  # of the store's files (store.py)

# What a tokenizer's folder may hold that changes its tokens; other files may lie beside them.
_TOKENIZER_FILES = (
    "added_tokens.json",
    "merges.txt",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
)
_VERSIONS = ("transformers_version", "dtype", "torch_dtype")  # settings that a copy saved anew may have otherwise


@dataclass(frozen=True)
class EncodingMark:
    """What encodings depend on. Stores of equal marks hold equal encodings."""

    clip: str
    clip_tokenizer: str
    clip_length: int
    t5: str
    t5_tokenizer: str
    t5_length: int
    autoencoder: str
    reference_rule: Rule
    reference_size: int
    reference_latents: Posterior
    dtype: str
    format: int = FORMAT


@dataclass(frozen=True)
class Flux2Mark:
    """The same for FLUX.2-klein, which has one text encoder."""

    qwen: str
    tokenizer: str
    text_length: int
    autoencoder: str
    reference_rule: Rule
    reference_size: int
    reference_latents: Posterior
    dtype: str
    format: int = FORMAT


def encoding_mark(
    *,
    clip: Path,
    clip_tokenizer: Path,
    t5: Path,
    t5_tokenizer: Path,
    autoencoder: Path,
    rule: Rule,
    long_side: int,
    posterior: Posterior,
    dtype: str,
) -> EncodingMark:
    """The mark of encodings that these folders would make; reads files, loads no model.

    ``autoencoder`` may be a single safetensors file; ``dtype`` is the text encoders', such as "bfloat16".
    Raises UserError naming a folder or file that is missing or can't be read.
    """
    return EncodingMark(
        clip=_model_mark(clip),
        clip_tokenizer=_tokenizer_mark(clip_tokenizer),
        clip_length=_tokenizer_length(clip_tokenizer, CLIP_LENGTH),
        t5=_model_mark(t5),
        t5_tokenizer=_tokenizer_mark(t5_tokenizer),
        t5_length=_tokenizer_length(t5_tokenizer, T5_LENGTH),
        autoencoder=_model_mark(autoencoder),
        reference_rule=rule,
        reference_size=long_side,
        reference_latents=posterior,
        dtype=dtype,
    )


def flux2_mark(
    *, qwen: Path, tokenizer: Path, autoencoder: Path, rule: Rule, long_side: int, posterior: Posterior, dtype: str
) -> Flux2Mark:
    """``encoding_mark`` for FLUX.2-klein."""
    return Flux2Mark(
        qwen=_model_mark(qwen),
        tokenizer=_tokenizer_mark(tokenizer, *_TOKENIZER_FILES, "chat_template.jinja"),
        text_length=_tokenizer_length(tokenizer, FLUX2_LENGTH),
        autoencoder=_model_mark(autoencoder),
        reference_rule=rule,
        reference_size=long_side,
        reference_latents=posterior,
        dtype=dtype,
    )


def _model_mark(path: Path) -> str:
    """Fingerprint of a model's weights and of its settings, less those that only name versions."""
    weights = file_fingerprint(path)
    config = path / "config.json"
    if not config.is_file():
        return weights
    settings = _read_json(config)
    kept = {key: value for key, value in settings.items() if not (key.startswith("_") or key in _VERSIONS)}
    return hashlib.sha256(f"{weights} {json.dumps(kept, sort_keys=True)}".encode()).hexdigest()


def _tokenizer_mark(folder: Path, *names: str) -> str:
    """sha256 of the tokenizer's files, those called ``names`` (default: _TOKENIZER_FILES)."""
    digest = hashlib.sha256()
    found = [folder / name for name in names or _TOKENIZER_FILES if (folder / name).is_file()]
    if not found:
        raise UserError(f"{folder}: holds no tokenizer; copy the whole checkpoint")
    for path in found:
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)} ".encode() + content)
    return digest.hexdigest()


def _tokenizer_length(folder: Path, most: int) -> int:
    """Tokens of a prompt, as ``PromptEncoder`` counts them."""
    path = folder / "tokenizer_config.json"
    settings = _read_json(path) if path.is_file() else {}
    return min(most, settings.get("model_max_length", most))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: can't be read ({error}); copy the checkpoint anew") from error
