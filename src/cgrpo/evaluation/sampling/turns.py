"""Work dealt to processes so that it may need them all: where a base is sharded, every forward does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor


class Processes(Protocol):
    """This process among ``world``; ``sharded`` where a forward needs them all."""

    rank: int
    world: int
    sharded: bool
    device: torch.device

    def gather(self, values: Tensor) -> Tensor:
        """The processes' tensors, equal in shape, one after another along the first axis; everywhere."""
        ...

    def share(self, text: str) -> str:
        """The main process's text, everywhere."""
        ...


class _Alone:
    """One process."""

    rank, world, sharded = 0, 1, False
    device = torch.device("cpu")

    def gather(self, values: Tensor) -> Tensor:
        return values

    def share(self, text: str) -> str:
        return text


ALONE = _Alone()


def turns(count: int, processes: Processes) -> Iterator[tuple[int, bool]]:
    """(number, mine) of the pieces of work, out of ``count``, that this process does, in order: every ``world``-th.

    Where the base is sharded all processes get equally many: one that has no piece left in the last turn gets another's
    again, not ``mine``, and goes through the motions.
    """
    for first in range(0, count, processes.world):
        number = first + processes.rank
        if number < count:
            yield number, True
        elif processes.sharded:
            yield first, False


def gather_parts(own: Tensor, parts: Sequence[Sequence[int]], processes: Processes) -> Tensor:
    """What the processes found of all rows, on the CPU of each: [N, ...] in the rows' order.

    ``parts`` are the rows' numbers, dealt by ``turns``; ``own`` [n, ...] are this process's rows, part after part.
    """
    world = processes.world
    rows_by_rank = [[row for part in parts[rank::world] for row in part] for rank in range(world)]
    most = max(map(len, rows_by_rank))
    padded = own.new_zeros(most, *own.shape[1:])
    padded[: len(own)] = own
    found = processes.gather(padded.to(processes.device)).cpu()
    whole = found.new_empty(sum(map(len, parts)), *own.shape[1:])
    for rank, rows in enumerate(rows_by_rank):
        whole[rows] = found[rank * most : rank * most + len(rows)]
    return whole
