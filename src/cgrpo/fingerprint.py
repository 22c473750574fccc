"""Fingerprints: short texts that tell whether two things are the same. All are SHA-256 in hexadecimal.

This is the only module that hashes for identity. ``of_tensors`` imports torch when it is called.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

SAMPLES = 1024  # values per tensor


def of_bytes(content: bytes) -> str:
    """The fingerprint of some bytes."""
    return hashlib.sha256(content).hexdigest()


def of_parts(parts: Iterable[bytes]) -> str:
    """The fingerprint of bytes that come in parts; where one part ends and the next begins plays no part."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part)
    return whole.hexdigest()


def of_text(text: str) -> str:
    """The fingerprint of a text, encoded as UTF-8."""
    return of_bytes(text.encode())


def of_file(path: Path) -> str:
    """The fingerprint of a file's content, read in pieces. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def of_picture(picture: Image) -> str:
    """The fingerprint of a picture's mode, size and pixels; its file format plays no part."""
    return of_bytes(f"{picture.mode} {picture.width}x{picture.height} ".encode() + picture.tobytes())


def of_settings(settings: Any) -> str:
    """The fingerprint of anything JSON can hold; the order of keys plays no part."""
    return of_text(json.dumps(settings, sort_keys=True))


def of_tensors(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """The fingerprint of named tensors: names, shapes and up to 1,024 evenly spaced values of each.

    A sample of values makes 12 billion parameters a matter of seconds. Two checkpoints that differ in a handful of
    single values may share a fingerprint; no training run produces such a pair. Values are rounded to bfloat16, so the
    fingerprint does not depend on the precision a checkpoint was loaded in. The order of tensors plays no part.
    """
    lines = sorted(f"{name} {_of_tensor(tensor)}\n" for name, tensor in tensors)
    return of_text("".join(lines))


def _of_tensor(tensor: Tensor) -> str:
    import torch

    count = min(tensor.numel(), SAMPLES)
    places = torch.arange(count, device=tensor.device) * tensor.numel() // max(count, 1)
    # Indexing by coordinates copies no whole tensor where a flat view would have to.
    values = tensor.detach()[torch.unravel_index(places, tensor.shape)] if tensor.ndim else tensor.detach()
    content = values.to(torch.bfloat16).contiguous().cpu().view(torch.int16).numpy().astype("<i2").tobytes()
    return of_bytes(str(tuple(tensor.shape)).encode() + content)
