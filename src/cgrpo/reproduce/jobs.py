"""Trainings side by side as submitit's jobs, on this machine or on SLURM: finished ones are kept, others resume.

On this machine a job ends with the process that waits for it. On SLURM it outlives that process. Its id stands in the
run directory, so that the next call waits for it and submits nothing twice. Before a time limit or a preemption the
job queues itself again, and its training resumes from its newest checkpoint.
"""

from __future__ import annotations

import json
import os
import time
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgrpo.errors import UserError
from cgrpo.files import json_text, reading, write_text
from cgrpo.launch import Training
from cgrpo.reproduce.results import Results
from cgrpo.reproduce.runs import Job

if TYPE_CHECKING:
    import submitit

POLL = 0.5  # seconds between two looks at the jobs
CLUSTERS = ("slurm", "local")
DAY = 24 * 60  # minutes: the default time limit of a job on SLURM; a training takes as many jobs as it needs
EVER = 3650 * DAY  # the default time limit on this machine
AGAIN = 1000  # how often a job may reach its time limit
SHARED = ("name", "timeout_min", "mem_gb", "cpus_per_task", "gpus_per_node", "stderr_to_stdout")
ONE = ("nodes", "tasks_per_node")  # a job starts all processes of its training itself


@dataclass
class Progress:
    """Of the whole list. ``failed``: the reason by key; such a training is not tried again in this call."""

    total: int
    done: int = 0
    running: int = 0
    failed: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        failed = f", {len(self.failed)} failed" if self.failed else ""
        return f"{self.done} of {self.total} trainings done, {self.running} running{failed}"


def run_jobs(
    jobs: Iterable[Job],
    results: Results,
    runs: Path,
    start: Callable[[Training], Submitted],
    side_by_side: int = 1,
    say: Callable[[str], None] = print,
    gpus: int = 1,
) -> Progress:
    """Train what has no result yet, ``side_by_side`` at a time, in run directories under ``runs``.

    ``start`` starts a training of ``gpus`` processes. A run directory that an earlier call left is resumed. A training
    that fails is reported and marked, and the others continue.
    """
    wanted = {job.key: job for job in jobs}
    waiting = [job for job in wanted.values() if results.find(job.key) is None]
    progress = Progress(total=len(wanted), done=len(wanted) - len(waiting))
    started: dict[str, tuple[Job, Submitted, float]] = {}
    say(str(progress))
    try:
        while waiting or started:
            while waiting and len(started) < side_by_side:
                job = waiting.pop(0)
                started[job.key] = (job, start(_training(job, runs / job.key, gpus)), time.monotonic())
                progress.running += 1
            time.sleep(POLL)
            for key, (job, process, began) in list(started.items()):
                code = process.poll()
                if code is None:
                    continue
                del started[key]
                progress.running -= 1
                _end(job, code, results, runs / key, progress)
                what = f"failed: {progress.failed[key]}" if key in progress.failed else "done"
                say(f"{job.label}: {what} ({time.monotonic() - began:.0f} s); {progress}")
    finally:
        for _, process, _ in started.values():
            process.stop()
    return progress


def _training(job: Job, run: Path, gpus: int) -> Training:
    run = run.absolute()  # a node may start elsewhere
    run.mkdir(parents=True, exist_ok=True)
    settings = [word for setting in job.settings for word in ("--set", setting)]
    return Training(run, (job.recipe, "--out", str(run), *settings), gpus)


def _end(job: Job, code: int, results: Results, run: Path, progress: Progress) -> None:
    try:
        with reading(run / "summary.json"):
            if code == 0 and json.loads((run / "summary.json").read_text())["metrics"]:
                results.keep(job, run)
                progress.done += 1
                return
        progress.failed[job.key] = _last_words(run / "log.txt") or f"exit code {code}"
    except (OSError, KeyError, TypeError, UserError) as error:
        words = _last_words(run / "log.txt") if code else ""
        progress.failed[job.key] = words or f"{type(error).__name__}: {error}"


def _last_words(log: Path) -> str:
    text = log.read_text(errors="replace") if log.exists() else ""
    lines = [line for line in text.replace("\r", "\n").splitlines() if line.strip()]
    return lines[-1].strip()[-300:] if lines else ""


class Cluster:
    """Starts trainings as jobs of ``kind``, which keep their files under ``folder``.

    settings  ``key=value`` as submitit names them (``timeout_min``, ``gpus_per_node``, ``cpus_per_task``, ``mem_gb``);
              a name that it does not know is the cluster's own: ``partition`` is ``slurm_partition``
    threads   of each training; None: as many as its node gives

    Raises UserError without such a cluster, and for settings that it does not take.
    """

    def __init__(
        self, kind: str, folder: Path, settings: Sequence[str] = (), gpus: int = 0, threads: int | None = None
    ):
        import submitit

        self.kind, self.threads = kind, threads
        self._folder = folder.absolute() / "%j"
        given = _parameters(kind, settings)
        # submitit's local executor hides all GPUs unless it is given some to hand out.
        self._variables = () if "gpus_per_node" in given or kind == "slurm" else ("CUDA_VISIBLE_DEVICES",)
        try:
            times = {"slurm_max_num_timeout": AGAIN} if kind == "slurm" else {}
            self._executor = submitit.AutoExecutor(self._folder, cluster=kind, **times)
            limit = DAY if kind == "slurm" else EVER
            self._executor.update_parameters(name="cgrpo", timeout_min=limit, gpus_per_node=gpus or None)
            self._executor.update_parameters(**given)
        except (AssertionError, NameError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(f"--cluster {kind}: {str(error).splitlines()[0]}") from error

    def __call__(self, training: Training) -> Submitted:
        training = replace(training, threads=self.threads)
        if self.kind == "local":
            variables = {name: os.environ.get(name) for name in self._variables}
            training = replace(training, owner=os.getpid(), variables=variables)
            return Submitted(self._executor.submit(training), training.run, ends=True)
        from submitit import SlurmJob

        mark = training.run / "cluster.json"
        if mark.exists() and (earlier := json.loads(mark.read_text()))["cluster"] == self.kind:
            job = SlurmJob(earlier["folder"], earlier["job"])
            if not job.done() or job.exception() is None:  # it may have ended while nobody waited
                return Submitted(job, training.run)
        job = self._executor.submit(training)
        submitted = {"cluster": self.kind, "job": job.job_id, "folder": str(self._folder)}
        write_text(mark, json_text(submitted) + "\n")
        return Submitted(job, training.run)


class Submitted:
    """A job. ``ends``: it is cancelled when nobody waits for it.

    What the cluster says of a job that ended without its training's own words goes into the run's log.
    """

    def __init__(self, job: submitit.Job[int], run: Path, ends: bool = False):
        self._job, self._run, self._ends = job, run, ends

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        if not self._job.done():
            return None
        error = self._job.exception()
        if error is None:
            return self._job.result()
        with (self._run / "log.txt").open("a", encoding="utf-8") as log:
            log.write(f"\njob {self._job.job_id} of the cluster: {_cause(str(error))}\n")
        return 1

    def stop(self) -> None:
        """Nobody waits for it any more."""
        if self._ends:
            self._job.cancel()


def _cause(trace: str) -> str:
    """Of submitit's report, the line that says what went wrong."""
    lines = trace.splitlines()
    ruled = [n for n, line in enumerate(lines) if line.startswith("-----")]
    return lines[ruled[1] - 1] if len(ruled) > 1 and ruled[1] else " ".join(lines[:2])


def _parameters(kind: str, settings: Sequence[str]) -> Mapping[str, Any]:
    """As submitit takes them; values are read as TOML, plain words as text."""
    parameters = {}
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
        parameters[key if shared else f"{kind}_{key}"] = value
    return parameters
