"""Models that wait in the CPU's memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def on_device(device: torch.device, *modules: nn.Module, offload: bool) -> Iterator[None]:
    """With ``offload``, the modules are on ``device`` within and on the CPU after; else they stay where they are."""
    if not offload:
        yield
        return
    try:
        for module in modules:
            module.to(device)
        yield
    finally:
        for module in modules:
            module.to("cpu")
