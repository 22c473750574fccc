"""Trainings side by side, each a process of its own: what is finished is never trained again, what is not goes on."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cgrpo.reproduce.results import Results
from cgrpo.reproduce.runs import Job

POLL = 0.5  # seconds between two looks at the processes


@dataclass
class Progress:
    """Of the whole list. ``failed``: the reason by key; such a training is not tried again in this call."""

    total: int
    done: int = 0
    running: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        failed = f", {len(self.failed)} failed" if self.failed else ""
        return f"{self.done} of {self.total} trainings done, {len(self.running)} running{failed}"


def run_jobs(
    jobs: Iterable[Job], results: Results, runs: Path, side_by_side: int = 1, say: Callable[[str], None] = print
) -> Progress:
    """Train what has no result yet, ``side_by_side`` at a time, in run directories under ``runs``.

    A run directory that an earlier call left is resumed. The cores are divided between the processes, which end with
    this one, however it ends. A training that fails is said and marked, and the others go on.
    """
    wanted = {job.key: job for job in jobs}
    waiting = [job for job in wanted.values() if results.find(job.key) is None]
    progress = Progress(total=len(wanted), done=len(wanted) - len(waiting))
    going: dict[str, tuple[Job, subprocess.Popen[bytes], float]] = {}
    threads = max(1, (os.cpu_count() or 1) // side_by_side)
    say(str(progress))
    try:
        while waiting or going:
            while waiting and len(going) < side_by_side:
                job = waiting.pop(0)
                going[job.key] = (job, _start(job, runs / job.key, threads), time.monotonic())
                progress.running[job.key] = job.label
            time.sleep(POLL)
            for key, (job, process, began) in list(going.items()):
                if process.poll() is None:
                    continue
                del going[key], progress.running[key]
                _end(job, process.returncode, results, runs / key, progress)
                what = f"failed: {progress.failed[key]}" if key in progress.failed else "done"
                say(f"{job.label}: {what} ({time.monotonic() - began:.0f} s); {progress}")
    finally:
        for _, process, _ in going.values():
            process.kill()
            process.wait()
    return progress


def _start(job: Job, run: Path, threads: int) -> subprocess.Popen[bytes]:
    run.mkdir(parents=True, exist_ok=True)
    settings = [word for setting in job.settings for word in ("--set", setting)]
    begun = (run / "metrics.jsonl").exists()
    how = ["--resume", str(run)] if begun else [job.recipe, "--out", str(run), *settings]
    with (run / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "cgrpo", "train", *how],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )


def _end_with_parent() -> None:
    """Linux: this process is killed when its parent ends, so that no training goes on unseen beside a new call's."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _end(job: Job, code: int, results: Results, run: Path, progress: Progress) -> None:
    try:
        if code == 0 and json.loads((run / "summary.json").read_text())["metrics"]:
            results.keep(job, run)
            progress.done += 1
            return
        progress.failed[job.key] = _last_words(run / "log.txt") or f"exit code {code}"
    except (OSError, ValueError, KeyError) as error:
        progress.failed[job.key] = f"{type(error).__name__}: {error}"


def _last_words(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").replace("\r", "\n").splitlines() if line.strip()]
    return lines[-1].strip()[-300:] if lines else ""
