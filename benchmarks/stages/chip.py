"""The machine, and the two ceilings of its device: the rate of large bf16 products, and memory bandwidth."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator

import torch

from stages.harness import Row, cuda, device, stage, time_of

PACKAGES = ("torch", "diffusers", "transformers", "peft", "accelerate", "torchao", "customized-grpo")


def figures(tiny: bool) -> Iterator[Row]:
    yield {"figure": "machine", **machine()}
    size = 512 if tiny else 8192
    a, b = (torch.randn(size, size, device=device(), dtype=torch.bfloat16) for _ in range(2))
    seconds = time_of(lambda: a @ b, 20, 5)
    yield {"figure": "bf16 product", "size": size, "seconds": seconds, "tflops": 2 * size**3 / seconds / 1e12}
    source = torch.randn(2**22 if tiny else 2**30, device=device())
    target = torch.empty_like(source)
    seconds = time_of(lambda: target.copy_(source), 10, 2)
    moved = 2 * source.numel() * source.element_size()
    yield {"figure": "copy", "bytes": moved, "seconds": seconds, "tb_per_second": moved / seconds / 1e12}


def machine() -> Row:
    found: Row = {"device": "cpu", "python": platform.python_version(), "threads": torch.get_num_threads()}
    if cuda():
        properties = torch.cuda.get_device_properties(0)
        found |= {"device": properties.name, "memory_gib": properties.total_memory / 2**30, "cuda": torch.version.cuda}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


if __name__ == "__main__":
    stage("chip", figures)
