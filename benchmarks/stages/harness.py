"""What all stages share: writing figures, timing, memory, and being out of it."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

Row = dict[str, Any]


def cuda() -> bool:
    return torch.cuda.is_available()


def device() -> torch.device:
    return torch.device("cuda" if cuda() else "cpu")


def synchronise() -> None:
    if cuda():
        torch.cuda.synchronize()


def time_of(work: Callable[[], object], repeats: int, warm_up: int = 1) -> float:
    """Median seconds of ``work``, the device's included."""
    seconds = []
    for number in range(warm_up + repeats):
        synchronise()
        start = time.perf_counter()
        work()
        synchronise()
        if number >= warm_up:
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def measure(work: Callable[[], object], repeats: int = 3, warm_up: int = 1) -> Row:
    """Seconds and peak GiB of ``work``, or that it was out of memory. The peak counts everything that is allocated."""
    if cuda():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        found: Row = {"seconds": time_of(work, repeats, warm_up), "repeats": repeats}
    except torch.OutOfMemoryError:
        return {"out_of_memory": True}
    if cuda():
        found["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return found


def stage(name: str, figures: Callable[[bool], Iterator[Row]]) -> None:
    """The main program of a stage: every row that ``figures(tiny)`` yields is on disk before the next is measured."""
    parser = argparse.ArgumentParser()
    parser.add_argument("lines", type=Path)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    for row in figures(options.tiny):
        whole = {"stage": name, "tiny": options.tiny, **row}
        with options.lines.open("a") as file:
            file.write(json.dumps(whole) + "\n")
            file.flush()
            os.fsync(file.fileno())
        print(json.dumps(whole), flush=True)
    sys.stdout.flush()
