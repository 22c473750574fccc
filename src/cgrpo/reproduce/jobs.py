"""Trainings side by side, each a process of its own, here or on a cluster: what is finished is never trained again,
what is not goes on."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from cgrpo.errors import UserError
from cgrpo.launch import Training
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


class Process(Protocol):
    """A training that was started."""

    def poll(self) -> int | None:
        """The exit code; None while it goes on."""
        ...

    def stop(self) -> None:
        """Nobody waits for it any more."""
        ...


Start = Callable[[Training], Process]


def run_jobs(
    jobs: Iterable[Job],
    results: Results,
    runs: Path,
    side_by_side: int = 1,
    say: Callable[[str], None] = print,
    gpus: int = 1,
    start: Start | None = None,
) -> Progress:
    """Train what has no result yet, ``side_by_side`` at a time, in run directories under ``runs``.

    ``start`` is told of each training, with ``gpus`` processes; by default it starts it on this machine, where the
    cores are divided between the trainings, which end with this process, however it ends. A run directory that an
    earlier call left is resumed. A training that fails is said and marked, and the others go on.
    """
    start = start or Here(max(1, (os.cpu_count() or 1) // (side_by_side * gpus)))
    wanted = {job.key: job for job in jobs}
    waiting = [job for job in wanted.values() if results.find(job.key) is None]
    progress = Progress(total=len(wanted), done=len(wanted) - len(waiting))
    going: dict[str, tuple[Job, Process, float]] = {}
    say(str(progress))
    try:
        while waiting or going:
            while waiting and len(going) < side_by_side:
                job = waiting.pop(0)
                going[job.key] = (job, start(_training(job, runs / job.key, gpus)), time.monotonic())
                progress.running[job.key] = job.label
            time.sleep(POLL)
            for key, (job, process, began) in list(going.items()):
                code = process.poll()
                if code is None:
                    continue
                del going[key], progress.running[key]
                _end(job, code, results, runs / key, progress)
                what = f"failed: {progress.failed[key]}" if key in progress.failed else "done"
                say(f"{job.label}: {what} ({time.monotonic() - began:.0f} s); {progress}")
    finally:
        for _, process, _ in going.values():
            process.stop()
    return progress


def _training(job: Job, run: Path, gpus: int) -> Training:
    run = run.absolute()  # a node may start elsewhere
    run.mkdir(parents=True, exist_ok=True)
    settings = [word for setting in job.settings for word in ("--set", setting)]
    return Training(run, (job.recipe, "--out", str(run), *settings), gpus)


class Here:
    """Starts trainings on this machine, ``threads`` each."""

    def __init__(self, threads: int):
        self.threads = threads

    def __call__(self, training: Training) -> Process:
        return _Child(replace(training, threads=self.threads))


class _Child:
    """A process that ends with this one."""

    def __init__(self, training: Training):
        self._several = training.gpus > 1
        with (training.run / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(
                training.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=training.environment(),
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,
            )

    def poll(self) -> int | None:
        return self._process.poll()

    def stop(self) -> None:
        if self._several:  # torchrun's workers end with it where it is told to end
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
        self._process.kill()
        self._process.wait()


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
    except (OSError, ValueError, KeyError, TypeError, UserError) as error:
        progress.failed[job.key] = f"{type(error).__name__}: {error}"


def _last_words(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").replace("\r", "\n").splitlines() if line.strip()]
    return lines[-1].strip()[-300:] if lines else ""
