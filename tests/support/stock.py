"""What the comparisons with stock pipelines share."""

from __future__ import annotations

from PIL.Image import Image
from torch import Tensor

from cgrpo.types import Batch

PROMPT, LONG = "a red cube on the beach", "the red ball on the beach in the snow " * 30
STEPS = 4
NEAR = 1e-5  # of the largest value: the rounding of batched sums and of memory layouts


def near(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= NEAR * expected.abs().max() and expected.abs().max() > 0.1


def task(references: tuple[Image, ...] = (), prompt: str = PROMPT) -> Batch:
    return Batch(("0",), (prompt,), (references,), ("cube",))
