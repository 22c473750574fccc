"""Position ids of FLUX.2's tokens: (picture, row, column, word)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

APART = 10  # between the numbers of two pictures


def position_ids(target: tuple[int, int], references: Sequence[tuple[int, int]]) -> Tensor:
    """Ids of the target's tokens followed by those of every reference.

    Sizes are (rows, columns) in tokens. The target's number is 0, those of the references 10, 20, ...; rows and
    columns begin at 0 in each picture; the word is 0 (Flux2KleinPipeline, ``_prepare_image_ids``).

    Returns float32 [L + L_ref, 4].
    """
    numbers = range(0, APART * (len(references) + 1), APART)
    return torch.cat([_grid(size, number) for size, number in zip((target, *references), numbers, strict=True)])


def word_ids(count: int, device: torch.device | str = "cpu") -> Tensor:
    """Ids of ``count`` text tokens, float32 [L, 4]: they differ in the word alone."""
    ids_LD = torch.zeros(count, 4, device=device)
    ids_LD[:, 3] = torch.arange(count, device=device)
    return ids_LD


def _grid(size: tuple[int, int], number: int) -> Tensor:
    """Ids of one picture, row by row: [rows * columns, 4]."""
    ids_HWD = torch.zeros(*size, 4)
    ids_HWD[..., 0] = number
    ids_HWD[..., 1] = torch.arange(size[0])[:, None]
    ids_HWD[..., 2] = torch.arange(size[1])[None, :]
    return ids_HWD.reshape(-1, 4)
