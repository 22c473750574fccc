"""What a process keeps in memory of its parquet files: decoded blocks and half-read row groups, within bounds."""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, Generic, Protocol, TypeVar

KEPT_BYTES = 64 << 20  # decoded blocks kept, over all files of a process
KEPT_CURSORS = 8  # half-read row groups kept open, likewise


class _Sized(Protocol):
    """A decoded block."""

    @property
    def nbytes(self) -> int: ...


B = TypeVar("B", bound=_Sized)
C = TypeVar("C")


class Store(Generic[B, C]):
    """What a process keeps of its tables: decoded blocks and half-read row groups, least recently used first out."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks: OrderedDict[tuple[Hashable, str, int], B] = OrderedDict()
        self._cursors: OrderedDict[tuple[Hashable, str], C] = OrderedDict()
        self._bytes = 0

    def block(self, table: Hashable, column: str, first: int) -> B | None:
        with self._lock:
            found = self._blocks.get((table, column, first))
            if found is not None:
                self._blocks.move_to_end((table, column, first))
            return found

    def keep(self, table: Hashable, column: str, first: int, block: B) -> None:
        with self._lock:
            if (table, column, first) not in self._blocks:
                self._blocks[table, column, first] = block
                self._bytes += block.nbytes
            while self._bytes > KEPT_BYTES and len(self._blocks) > 1:
                self._bytes -= self._blocks.popitem(last=False)[1].nbytes

    def take(self, table: Hashable, column: str) -> C | None:
        with self._lock:
            return self._cursors.pop((table, column), None)

    def put_back(self, table: Hashable, column: str, cursor: C) -> None:
        with self._lock:
            self._cursors[table, column] = cursor
            while len(self._cursors) > KEPT_CURSORS:
                self._cursors.popitem(last=False)


@functools.lru_cache(maxsize=1)
def store_of(process: int) -> Store[Any, Any]:
    """``process``: a forked child must not wait for a lock that a thread of its parent held."""
    return Store()
