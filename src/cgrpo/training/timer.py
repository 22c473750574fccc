"""Seconds per phase of an iteration."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Timer:
    """``with timer("sample"): ...``; on a GPU the queue is drained at each border, so the seconds are true."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = _now()
        yield
        self._seconds[phase] = self._seconds.get(phase, 0.0) + _now() - start

    def seconds(self) -> dict[str, float]:
        """``seconds/<phase>`` of every phase, and their sum as ``seconds/total``."""
        return {f"seconds/{phase}": value for phase, value in self._seconds.items()} | {
            "seconds/total": sum(self._seconds.values())
        }


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
