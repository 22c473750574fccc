"""How FLUX.2 lays target and reference tokens out, and its stock pipeline's schedule, which depends on that."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cgrpo.policies.encodings.latents import Geometry

APART = 10  # between the numbers of two pictures


class Flux2Geometry(Geometry):
    """Every picture has a number of its own on the ids' first axis."""

    def noise(self, seed: int) -> Tensor:
        """As the stock pipeline draws it: tokens' channels first."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(1, self.channels, *self.grid, generator=generator).flatten(2).transpose(1, 2).contiguous()

    def ids(self, references: Sequence[tuple[int, int]]) -> Tensor:
        """Ids (picture, row, column, word) of the target's tokens followed by those of every reference.

        The target's number is 0, those of the references 10, 20, ...; rows and columns begin at 0 in each picture; the
        word is 0 (Flux2KleinPipeline, ``_prepare_image_ids``). Returns float32 [L + L_ref, 4].
        """
        numbers = range(0, APART * (len(references) + 1), APART)
        sizes = (self.grid, *references)
        return torch.cat([_grid(size, number) for size, number in zip(sizes, numbers, strict=True)])

    def text_ids(self, count: int) -> Tensor:
        """They differ in the word alone."""
        ids_LD = torch.zeros(count, 4)
        ids_LD[:, 3] = torch.arange(count)
        return ids_LD


def _grid(size: tuple[int, int], number: int) -> Tensor:
    """Ids of one picture, row by row: [rows * columns, 4]."""
    ids_HWD = torch.zeros(*size, 4)
    ids_HWD[..., 0] = number
    ids_HWD[..., 1] = torch.arange(size[0])[:, None]
    ids_HWD[..., 2] = torch.arange(size[1])[None, :]
    return ids_HWD.reshape(-1, 4)


def flux2_sigmas(steps: int, tokens: int) -> Tensor:
    """The stock pipeline's grid, fp32 [steps + 1]: shift e^mu of (steps, tokens), rounded as its scheduler rounds it.

    mu is linear in the tokens for 10 steps and for 200, and between these linear in the steps; above 4300 tokens it
    is that of 200 steps (``compute_empirical_mu``, whose constants these are).
    """
    many = 0.00016927 * tokens + 0.45666666
    if tokens > 4300:
        mu = many
    else:
        slope = (many - (8.73809524e-05 * tokens + 1.89833333)) / 190
        mu = slope * steps + (many - 200 * slope)
    s = np.linspace(1, 1 / steps, steps).astype(np.float32)  # torch divides a number by a tensor in two roundings
    shifted = math.exp(mu) / (math.exp(mu) + (1 / s - 1))
    return torch.cat((torch.from_numpy(shifted), torch.zeros(1)))
