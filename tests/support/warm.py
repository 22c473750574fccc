"""Processes that start warm: forked from one that has imported everything and computed nothing.

A command in a process of its own costs seconds of imports; forked it costs none, and can be killed, or be one of
several, all the same. What torchrun does is done here: ranks, a store to meet at, an end to all when one fails.
test_equivalence starts it in earnest. It forks from a server and not from pytest, whose autograd has threads.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import forkserver, get_context
from multiprocessing.connection import wait
from pathlib import Path

import torch
from torch.distributed import TCPStore

CONTEXT = get_context("forkserver")
# By name, and only what any command imports by itself: a test's own modules are found by each process.
CONTEXT.set_forkserver_preload(
    ["cgrpo.app.main", "cgrpo.app.benchmark", "cgrpo.app.run", "cgrpo.serving.server", "diffusers", "peft"]
)


class Started:
    """One process, or several that know of each other, running ``main(arguments)``; ``main`` is a module's."""

    def __init__(
        self,
        main: Callable[[list[str]], int | None],
        arguments: Sequence[str],
        processes: int = 1,
        *,
        threads: int | None = None,
    ):
        """threads: of each process; as many as here where None, but 1 for several, or they fight for the cores."""
        self.command = [f"{main.__module__}.{main.__name__}", *arguments]
        self._folder = tempfile.TemporaryDirectory(prefix="warm-")
        self._out, self._err = (Path(self._folder.name, name) for name in ("out", "err"))
        env, threads = dict(os.environ), threads or (1 if processes > 1 else torch.get_num_threads())
        if processes > 1:
            self._store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
            env |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
            env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(self._store.port)}
            env |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
        with _quiet():
            forkserver.ensure_running()
        self.processes = []
        for rank in range(processes):
            own = env | ({"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {})
            given = (main, list(arguments), own, threads, str(self._out), str(self._err))
            self.processes.append(CONTEXT.Process(target=_run, args=given, daemon=True))
        for process in self.processes:
            process.start()

    def poll(self) -> int | None:
        """The first process's exit code, None while it runs."""
        return self.processes[0].exitcode

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        for process in self.processes:
            process.kill()
            process.join()

    def wait(self, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """All ended; when one fails, or the time is over, the others are killed."""
        until = time.monotonic() + timeout
        running = list(self.processes)
        while running and time.monotonic() < until:
            wait([process.sentinel for process in running], timeout=until - time.monotonic())
            running = [process for process in running if process.exitcode is None]
            if any(process.exitcode for process in self.processes):
                break
        codes = [process.exitcode for process in self.processes if process.exitcode is not None]
        if any(codes) or running:
            self.kill()
        code = next((code for code in codes if code), -signal.SIGKILL if running else 0)
        out, err = self._out.read_text(), self._err.read_text()
        return subprocess.CompletedProcess(self.command, code, out, err)


def module(arguments: list[str]) -> None:
    """``python -m ARGUMENTS``."""
    sys.argv = arguments
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What imports print is no test's output."""
    kept = [os.dup(number) for number in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for number in (1, 2):
            os.dup2(nowhere, number)
        yield
    finally:
        for number, old in zip((1, 2), kept, strict=True):
            os.dup2(old, number)
            os.close(old)
        os.close(nowhere)


def _run(
    main: Callable[[list[str]], int | None], arguments: list[str], env: dict[str, str], threads: int, *files: str
) -> None:
    for number, file in zip((1, 2), files, strict=True):
        target = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.dup2(target, number)
        os.close(target)
    os.environ.clear()
    os.environ.update(env)
    torch.set_num_threads(threads)
    sys.exit(main(arguments))
