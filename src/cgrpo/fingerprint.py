"""What weights are, in 64 characters: to tell one checkpoint from another.

A sample of every tensor is hashed, not all of it: 12 billion parameters in seconds. Two checkpoints that
differ in a handful of single values only may share a fingerprint; no training does that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor

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


def _digest(tensor: Tensor) -> str:
    count = min(tensor.numel(), SAMPLES)
    places = torch.arange(count, device=tensor.device) * tensor.numel() // max(count, 1)
    # Indexing by coordinates copies no whole tensor where a flat view would have to.
    values = tensor.detach()[torch.unravel_index(places, tensor.shape)] if tensor.ndim else tensor.detach()
    content = values.to(torch.bfloat16).contiguous().cpu().view(torch.int16).numpy().astype("<i2").tobytes()
    return hashlib.sha256(str(tuple(tensor.shape)).encode() + content).hexdigest()
