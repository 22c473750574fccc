"""How FLUX.1 lays target and reference tokens out.

UNO (arXiv 2504.02160, section 3.3: UnoPE) moves references away on the picture's plane; FLUX.1 Kontext
(arXiv 2506.15742, section 3) leaves them in place and counts them on the ids' first axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cgrpo.policies.encodings.latents import Geometry, pack
from cgrpo.policies.settings import PositionScheme


@dataclass(frozen=True)
class FluxGeometry(Geometry):
    """``scheme`` places the references (``position_ids``)."""

    scheme: PositionScheme = "d"

    def noise(self, seed: int) -> Tensor:
        """As diffusers' FLUX pipelines draw it: latents first, then tokens."""
        rows, columns = self.grid
        generator = torch.Generator().manual_seed(seed)
        return pack(torch.randn(1, self.channels // 4, 2 * rows, 2 * columns, generator=generator))

    def ids(self, references: Sequence[tuple[int, int]]) -> Tensor:
        return position_ids(self.grid, references, self.scheme)

    def text_ids(self, count: int) -> Tensor:
        return torch.zeros(count, 3)


def position_ids(
    target: tuple[int, int], references: Sequence[tuple[int, int]], scheme: PositionScheme = "d"
) -> Tensor:
    """Ids (number, row, column) of the target's tokens followed by those of every reference.

    ``target`` and ``references`` are (rows, columns) in tokens; a FLUX token covers 16 x 16 pixels.
    UNO: the number is 0; the offset of a reference starts at the target's size and grows by the size
    of each reference before it. Scheme "d" (its default) shifts rows and columns by it, "h" rows only,
    "w" columns only, and "o" nothing: there all references lie on the target. "kontext": no offset;
    the target's number is 0, that of the i-th reference i (FluxKontextPipeline takes one and gives it 1).

    Returns float32 [L + L_ref, 3]: rotary angles lose their meaning in half precision.
    """
    grids = [_grid(target, (0, 0))]
    row, column = target
    for number, size in enumerate(references, 1):
        if scheme == "kontext":
            grids.append(_grid(size, (0, 0), number))
            continue
        grids.append(_grid(size, (row if scheme in "dh" else 0, column if scheme in "dw" else 0)))
        row, column = row + size[0], column + size[1]
    return torch.cat(grids)


def _grid(size: tuple[int, int], offset: tuple[int, int], number: int = 0) -> Tensor:
    """Ids of one picture, row by row: [rows * columns, 3]."""
    ids_HWD = torch.full((*size, 3), float(number))
    ids_HWD[..., 1] = offset[0] + torch.arange(size[0])[:, None]
    ids_HWD[..., 2] = offset[1] + torch.arange(size[1])[None, :]
    return ids_HWD.reshape(-1, 3)
