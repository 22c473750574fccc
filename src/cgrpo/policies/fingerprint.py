"""What weights are, in 64 characters: to tell which checkpoint an adapter belongs to.

A sample of every tensor is hashed, not all of it: 12 billion parameters in seconds. Two checkpoints that
differ in a handful of single values only may share a fingerprint; no training does that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from cgrpo.errors import UserError
from cgrpo.policies.adapters.formats import split_projection

SAMPLES = 1024  # values per tensor


def fingerprint(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 over sorted names, shapes and up to 1024 evenly spaced values of each tensor.

    Values are rounded to bfloat16, so that a bf16 checkpoint has one fingerprint whatever precision it
    was loaded in. Nothing but the sampled values is copied; the order of the tensors doesn't matter.
    """
    digests = {name: _digest(tensor) for name, tensor in tensors}
    whole = hashlib.sha256()
    for name in sorted(digests):
        whole.update(f"{name} {digests[name]}\n".encode())
    return whole.hexdigest()


def transformer_fingerprint(transformer: nn.Module) -> str:
    """The fingerprint of a FLUX transformer's base weights under stock keys: fused or not, adapters left out."""
    return fingerprint(base_weights(transformer))


def base_weights(transformer: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Base weights by stock FluxTransformer2DModel key, in memory shared with the transformer."""
    for key, value in transformer.state_dict().items():
        if ".lora_" not in key:
            yield from split_projection(key.replace(".base_layer.", "."), value).items()


def file_fingerprint(path: str | Path) -> str:
    """The fingerprint of a safetensors file, or of all those in a folder together (shards), tensor by tensor.

    Raises UserError if there is none, or one can't be read.
    """
    path = Path(path)
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path}: holds no safetensors file; give a file or a folder of shards")
    return fingerprint(pair for file in files for pair in _read(file))


def _read(file: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        with safe_open(file, "pt") as opened:
            for key in opened.keys():  # noqa: SIM118
                yield key, opened.get_tensor(key)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file}: not a readable safetensors file ({error}); only safetensors are read") from error


def _digest(tensor: Tensor) -> str:
    count = min(tensor.numel(), SAMPLES)
    places = torch.arange(count, device=tensor.device) * tensor.numel() // max(count, 1)
    # Indexing by coordinates copies no whole tensor where a flat view would have to.
    values = tensor.detach()[torch.unravel_index(places, tensor.shape)] if tensor.ndim else tensor.detach()
    content = values.to(torch.bfloat16).contiguous().cpu().view(torch.int16).numpy().astype("<i2").tobytes()
    return hashlib.sha256(str(tuple(tensor.shape)).encode() + content).hexdigest()
