"""What a GPU does and holds."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from cgrpo.errors import UserError


@dataclass(frozen=True)
class Gpu:
    """``tflops``: dense bfloat16 with float32 sums, 10^12 operations a second; ``memory``: GiB.

    link, network   10^9 bytes a second one way: of a GPU to the others of its node, and of a node of 8 to the others
    """

    name: str
    tflops: float
    memory: float
    link: float = 32  # PCIe 4.0 with 16 lanes
    network: float = 12.5  # one port of 100 Gbit/s


_DATA_SHEETS = {  # the servers of the last two columns: DGX, or a board on PCIe
    "a100-40gb": (312, 40, 300, 200),
    "a100-80gb": (312, 80, 300, 200),
    "h100-80gb": (989, 80, 450, 400),
    "h200-141gb": (989, 141, 450, 400),
    "b200-180gb": (2250, 180, 900, 400),
    "l40s-48gb": (362, 48),
    "rtx-3090-24gb": (71, 24),
    "rtx-4090-24gb": (165, 24),
    "rtx-5090-32gb": (209.5, 32, 64),
}

GPUS = {name: Gpu(name, *numbers) for name, numbers in _DATA_SHEETS.items()}
"""By name. Source: the vendor's data sheets (without sparsity; SXM where there are several forms). What drivers keep
of the memory is part of the plan's reserve."""


# What vendors and drivers put around a name.
NOISE = {"nvidia", "geforce", "tesla", "gpu", "gb", "pcie", "sxm", "sxm4", "sxm5", "hbm2", "hbm2e", "hbm3", "hbm3e"}


def known_gpu(name: str) -> Gpu | None:
    """The GPU of our list that a person means, such as "RTX 4090" or "NVIDIA A100-SXM4-80GB"; None for another.

    Raises UserError where it may be several.
    """
    words = set(re.split(r"[\s_-]+", name.lower().strip())) - NOISE - {""}
    found = [gpu for key, gpu in GPUS.items() if words and words <= _words(key)]
    if len(found) > 1:
        raise UserError(f"GPU {name!r}: it may be {' or '.join(gpu.name for gpu in found)}; say which")
    return found[0] if found else None


def _words(key: str) -> set[str]:
    """Of "rtx-4090-24gb": rtx, 4090, rtx4090, 24gb and 24."""
    parts = key.split("-")
    return {*parts, "".join(parts[:-1]), parts[-1].removesuffix("gb")}


def find_gpu(name: str, tflops: float | None = None, memory: float | None = None) -> Gpu:
    """The GPU called ``name`` with its numbers overridden by those given; any name will do where both are.

    Raises UserError for an unknown name without them, and for numbers that aren't positive.
    """
    known = known_gpu(name)
    tflops = known.tflops if tflops is None and known else tflops
    memory = known.memory if memory is None and known else memory
    if tflops is None or memory is None:
        raise UserError(f"no GPU {name!r}: give one of {', '.join(GPUS)}, or its TFLOP/s and its memory in GiB")
    if tflops <= 0 or memory <= 0:
        raise UserError(f"GPU {name!r}: {tflops} TFLOP/s and {memory} GiB: both must be above 0")
    given = {"tflops": float(tflops), "memory": float(memory)}
    return replace(known, **given) if known else Gpu(name, **given)
