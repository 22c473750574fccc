"""Tasks and pictures for tests of rewards."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from cgrpo.types import Batch

TWO_BLACK = torch.zeros(2, 4, 4, 3, dtype=torch.uint8)


def tasks(references: Sequence[Sequence[Image.Image]] = (), prompts: Sequence[str] = (), masks=None) -> Batch:
    """As many tasks as there are references or prompts."""
    count = max(len(references), len(prompts))
    ids, references = tuple(map(str, range(count))), tuple(map(tuple, references))
    return Batch(
        ids, tuple(prompts) or ("",) * count, references or ((),) * count, ("toy",) * count, reference_masks=masks
    )


def noise(width: int, height: int, seed: int = 0, count: int = 1) -> list[Image.Image]:
    pixels = np.random.default_rng(seed).integers(0, 255, (count, height, width, 3), dtype=np.uint8)
    return [Image.fromarray(one) for one in pixels]
