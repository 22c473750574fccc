"""What a process keeps of the parquet files it reads: decoded blocks, and row groups that are read halfway."""

import functools
import threading
from collections import OrderedDict
from typing import Any

KEPT_BYTES = 64 << 20  # of decoded blocks, over all files of a process
KEPT_CURSORS = 8  # half-read row groups, likewise


class Cache:
    """Decoded blocks and half-read row groups of all tables of a process, the least recently used dropped first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        self._cursors: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        self.bytes = 0

    def block(self, key: tuple[Any, ...]) -> Any:
        with self._lock:
            if key in self._blocks:
                self._blocks.move_to_end(key)
            return self._blocks.get(key)

    def keep(self, key: tuple[Any, ...], block: Any) -> None:
        with self._lock:
            if key not in self._blocks:
                self._blocks[key] = block
                self.bytes += block.nbytes
            while self.bytes > KEPT_BYTES and len(self._blocks) > 1:
                self.bytes -= self._blocks.popitem(last=False)[1].nbytes

    def take(self, key: tuple[Any, ...]) -> Any:
        with self._lock:
            return self._cursors.pop(key, None)

    def put_back(self, key: tuple[Any, ...], cursor: Any) -> None:
        with self._lock:
            self._cursors[key] = cursor
            while len(self._cursors) > KEPT_CURSORS:
                self._cursors.popitem(last=False)


@functools.lru_cache(maxsize=1)
def cache_of(process: int) -> Cache:
    """``process``: a forked child must not wait for a lock that a thread of its parent held."""
    return Cache()
