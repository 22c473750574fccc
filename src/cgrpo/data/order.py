"""Which task comes when, and with which noise: functions of (seed, iteration, prompt), never of a process.

One process and n processes give the same run, and a resumed run is the uninterrupted one, because nothing here has a
state that would have to be saved.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from cgrpo.fingerprint import of_text


def derive(*parts: int | str) -> torch.Generator:
    """A CPU generator seeded by a hash of ``parts``: independent streams for different parts."""
    first = bytes.fromhex(of_text("/".join(map(str, parts))))[:8]
    return torch.Generator().manual_seed(int.from_bytes(first, "little") >> 1)


def task_indices(seed: int, iteration: int, count: int, size: int | None) -> list[int]:
    """The ``count`` tasks of an iteration out of ``size``; None is an endless source, read in order.

    A finite source is shuffled anew each epoch; an iteration may run over an epoch's end.
    """
    positions = range(iteration * count, (iteration + 1) * count)
    if size is None:
        return list(positions)
    orders: dict[int, list[int]] = {}
    for epoch in {position // size for position in positions}:
        orders[epoch] = torch.randperm(size, generator=derive(seed, "epoch", epoch)).tolist()
    return [orders[position // size][position % size] for position in positions]


class GroupNoise:
    """All randomness of the groups at ``positions`` of an iteration.

    Positions count over all processes. The initial noise is shared by a group (as in the release), or fresh for each
    sample; every step's noise is fresh for each sample. Draws of a group come from its own stream, so call
    ``initial`` once, then ``step`` for the stochastic steps in order.
    """

    def __init__(
        self, seed: int, iteration: int, positions: Sequence[int], group_size: int, latent_shape: tuple[int, int]
    ):
        self._streams = [derive(seed, "noise", iteration, position) for position in positions]
        self._group_size, self._shape = group_size, latent_shape
        self.window_generators = [
            derive(seed, "window", iteration, position, g) for position in positions for g in range(group_size)
        ]

    def initial(self, dtype: torch.dtype = torch.float32, shared: bool = True) -> Tensor:
        """x_NLC at sigma = 1: one draw per group, repeated for its samples, or one per sample."""
        if not shared:
            return self.step(0).to(dtype)
        rows = [torch.randn(self._shape, generator=stream) for stream in self._streams]
        return torch.stack(rows).repeat_interleave(self._group_size, 0).to(dtype)

    def step(self, k: int) -> Tensor:
        """Standard normal [N, L, C] for stochastic step ``k``."""
        return torch.cat([torch.randn(self._group_size, *self._shape, generator=stream) for stream in self._streams])
