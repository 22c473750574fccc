"""Fingerprints of models in memory and of safetensors files: to tell one checkpoint from another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from cgrpo.errors import UserError
from cgrpo.fingerprint import of_tensors


def models_fingerprint(models: Iterable[nn.Module]) -> str:
    """The fingerprint of several models together, in their order."""
    states = enumerate(model.state_dict() for model in models)
    return of_tensors((f"{number}.{name}", value) for number, state in states for name, value in state.items())


def file_fingerprint(path: str | Path) -> str:
    """The fingerprint of a safetensors file, or of all those in a folder together (shards), tensor by tensor.

    Raises UserError if there is none, or one can't be read.
    """
    path = Path(path)
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path}: holds no safetensors file; give a file or a folder of shards")
    return of_tensors(pair for file in files for pair in _read(file))


def _read(file: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        with safe_open(file, "pt") as opened:
            for key in opened.keys():  # noqa: SIM118
                yield key, opened.get_tensor(key)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file}: not a readable safetensors file ({error}); only safetensors are read") from error
