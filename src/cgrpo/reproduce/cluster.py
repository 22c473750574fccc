"""Trainings as jobs of a cluster, by submitit (the extra ``submitit``): SLURM, or its local executor to try it out.

A job on SLURM goes on without whoever submitted it; its id stands in the run directory, so that the next call waits for
it and submits nothing twice. Before a time limit or a preemption the job queues itself again, and its training goes on
from its newest checkpoint.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgrpo.errors import UserError
from cgrpo.files import json_text, write_text
from cgrpo.launch import Training
from cgrpo.reproduce.jobs import Process

if TYPE_CHECKING:
    import submitit

CLUSTERS = ("slurm", "local")
DAY = 24 * 60  # minutes: a job's time limit unless told otherwise; a training takes as many jobs as it needs
AGAIN = 1000  # times that a job may reach it
SHARED = ("name", "timeout_min", "mem_gb", "cpus_per_task", "gpus_per_node", "stderr_to_stdout")
ONE = ("nodes", "tasks_per_node")  # a job starts all processes of its training itself


class Cluster:
    """Starts trainings as jobs of ``kind``, which keep their files under ``folder``.

    settings  ``key=value`` as submitit names them (``timeout_min``, ``gpus_per_node``, ``cpus_per_task``, ``mem_gb``);
              a name that it does not know is the cluster's own: ``partition`` is ``slurm_partition``
    threads   of each training; None: as many as its node gives

    Raises UserError without submitit or such a cluster, and for settings that it does not take.
    """

    def __init__(
        self, kind: str, folder: Path, settings: Sequence[str] = (), gpus: int = 0, threads: int | None = None
    ):
        try:
            import submitit
        except ImportError:
            raise UserError("--cluster needs submitit: pip install submitit") from None
        self.kind, self.threads = kind, threads
        self._folder = folder.absolute() / "%j"
        try:
            times = {"slurm_max_num_timeout": AGAIN} if kind == "slurm" else {}
            self._executor = submitit.AutoExecutor(self._folder, cluster=kind, **times)
            self._executor.update_parameters(name="cgrpo", timeout_min=DAY, gpus_per_node=gpus or None)
            self._executor.update_parameters(**_parameters(kind, settings))
        except (AssertionError, NameError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(f"--cluster {kind}: {str(error).splitlines()[0]}") from error

    def __call__(self, training: Training) -> Process:
        training = replace(training, threads=self.threads)
        if self.kind == "local":
            return Submitted(self._executor.submit(replace(training, owner=os.getpid())), training.run, ends=True)
        from submitit import SlurmJob

        mark = training.run / "cluster.json"
        if mark.exists() and (earlier := json.loads(mark.read_text()))["cluster"] == self.kind:
            job = SlurmJob(earlier["folder"], earlier["job"])
            if not job.done() or job.exception() is None:  # it may have ended while nobody waited
                return Submitted(job, training.run)
        job = self._executor.submit(training)
        told = {"cluster": self.kind, "job": job.job_id, "folder": str(self._folder)}
        write_text(mark, json_text(told) + "\n")
        return Submitted(job, training.run)


class Submitted:
    """A job, which ``ends`` with this process or goes on; one without its training's own word is told in the log."""

    def __init__(self, job: submitit.Job[int], run: Path, ends: bool = False):
        self._job, self._run, self._ends = job, run, ends

    def poll(self) -> int | None:
        if not self._job.done():
            return None
        error = self._job.exception()
        if error is None:
            return self._job.result()
        with (self._run / "log.txt").open("a", encoding="utf-8") as log:
            log.write(f"\njob {self._job.job_id} of the cluster: {_cause(str(error))}\n")
        return 1

    def stop(self) -> None:
        if self._ends:
            self._job.cancel()


def _cause(trace: str) -> str:
    """Of submitit's report, the line that says what went wrong."""
    lines = trace.splitlines()
    ruled = [n for n, line in enumerate(lines) if line.startswith("-----")]
    return lines[ruled[1] - 1] if len(ruled) > 1 and ruled[1] else " ".join(lines[:2])


def _parameters(kind: str, settings: Sequence[str]) -> Mapping[str, Any]:
    """As submitit takes them; values are read as TOML, plain words as text."""
    found = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--cluster-set {setting}: write it as key=value")
        try:
            value = tomllib.loads(f"v = {text}")["v"]
        except (tomllib.TOMLDecodeError, RecursionError):
            value = text
        key = key.strip()
        if key.removeprefix(f"{kind}_") in ONE:
            raise UserError(f"--cluster-set {setting}: a training is one task on one node, which starts its processes")
        shared = key in SHARED or key.startswith(f"{kind}_")
        found[key if shared else f"{kind}_{key}"] = value
    return found
