"""Fingerprints of models in memory, and of the files of a checkpoint's parts: no model is loaded for those."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from cgrpo.errors import UserError
from cgrpo.files import reading
from cgrpo.fingerprint import of_file, of_settings, of_tensors
from cgrpo.policies.adapters.keys import split_projection
from cgrpo.policies.checkpoints import read_settings, weight_files

# What a tokenizer's folder may hold that changes its tokens; other files may lie beside them.
_TOKENIZER_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "merges.txt",
    "preprocessor_config.json",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
)
_VERSIONS = ("transformers_version", "dtype", "torch_dtype")  # settings that a copy saved anew may have otherwise


def models_fingerprint(models: Iterable[nn.Module]) -> str:
    """The fingerprint of several models together, in their order."""
    states = enumerate(model.state_dict() for model in models)
    return of_tensors((f"{number}.{name}", value) for number, state in states for name, value in state.items())


def transformer_fingerprint(transformer: nn.Module) -> str:
    """The fingerprint of a transformer's base weights under stock keys: fused or not, adapters left out."""
    return of_tensors(base_weights(transformer))


def base_weights(transformer: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Base weights by stock key, in memory shared with the transformer."""
    for key, value in transformer.state_dict().items():
        if ".lora_" not in key:
            yield from split_projection(key.replace(".base_layer.", "."), value).items()


def file_fingerprint(path: str | Path) -> str:
    """The fingerprint of a safetensors file, or of all those in a folder together (shards), tensor by tensor.

    Raises UserError if there is none, or one can't be read.
    """
    path = Path(path)
    files = weight_files(path) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path}: holds no safetensors file; give a file or a folder of shards")
    return of_tensors(pair for file in files for pair in _tensors(file))


def part_fingerprint(path: Path) -> str:
    """The fingerprint of a model's files: its weights, and its settings less those that only name versions."""
    config = path / "config.json"
    settings = read_settings(config) if config.is_file() else {}
    kept = {key: value for key, value in settings.items() if not (key.startswith("_") or key in _VERSIONS)}
    return of_settings([file_fingerprint(path), kept])


def tokenizer_fingerprint(folder: Path) -> str:
    """The fingerprint of the files that make a tokenizer's tokens."""
    files = [folder / name for name in _TOKENIZER_FILES if (folder / name).is_file()]
    if not files:
        raise UserError(f"{folder}: holds no tokenizer; copy the whole checkpoint")
    return of_settings({file.name: of_file(file) for file in files})


def _tensors(file: Path) -> Iterator[tuple[str, Tensor]]:
    with reading(file, "only safetensors are read", SafetensorError), safe_open(file, "pt") as opened:
        for key in opened.keys():  # noqa: SIM118
            yield key, opened.get_tensor(key)
