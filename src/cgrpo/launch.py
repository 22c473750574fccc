"""What a launcher such as torchrun says in the environment, read in one place; and a training as a process.

Light on purpose: on a cluster's node it is all that is loaded beside the training itself.
"""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from cgrpo.errors import UserError
from cgrpo.files import new_folder

NEEDED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
WAITING = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}
BUSY = 20.0  # per cent of all processors
OTHERS = {
    "PMI_SIZE": "srun or mpirun",
    "OMPI_COMM_WORLD_SIZE": "mpirun",
    "MV2_COMM_WORLD_SIZE": "mpirun",
    "SLURM_STEP_NUM_TASKS": "srun",
}
"""Where other launchers say how many processes they started."""
ENGINES = ("DEEPSPEED", "FSDP", "MEGATRON_LM", "PARALLELISM_CONFIG")  # that `accelerate launch` may ask for


def launched() -> tuple[int, int]:
    """This process's rank and the number of processes; (0, 1) where nothing launched it.

    Raises UserError where the environment says a part only, what can't be, or names another launcher.
    """
    given = {name: os.environ[name].strip() for name in NEEDED if os.environ.get(name, "").strip()}
    for engine in (f"ACCELERATE_USE_{engine}" for engine in ENGINES):
        if os.environ.get(engine, "").strip().lower() in ("1", "true", "yes", "y", "on"):
            raise UserError(
                f"environment: {engine} is set, but cgrpo shares the work itself; start it with env -u {engine}, and "
                "shard the base with --set training.parallel=fsdp2"
            )
    if "LOCAL_RANK" not in given and given.get("WORLD_SIZE", "1") == "1":
        for name, launcher in OTHERS.items():
            if (count := os.environ.get(name, "").strip()).isdecimal() and int(count) > 1:
                raise UserError(
                    f"environment: {name} = {count}: {launcher} started processes that can't find each other; start "
                    f"several with torchrun --nproc_per_node {count} -m cgrpo ..., or one with env -u {name} cgrpo ..."
                )
        return 0, 1  # a cluster that says RANK or MASTER_ADDR by the way has launched one process
    if missing := [name for name in NEEDED if name not in given]:
        raise UserError(
            f"environment: {', '.join(sorted(given))} is set but not {', '.join(missing)}; start several processes "
            f"with torchrun, or one with env {' '.join(f'-u {name}' for name in sorted(given))} cgrpo ..."
        )
    for name in (name for name in NEEDED if name != "MASTER_ADDR"):
        if not (given[name].isascii() and given[name].isdigit()):
            raise UserError(f"environment: {name} must be a whole number from 0 on, got {given[name]!r}")
    rank, world = int(given["RANK"]), int(given["WORLD_SIZE"])
    if rank >= world:
        raise UserError(f"environment: RANK ({rank}) must be below WORLD_SIZE ({world}); start with torchrun")
    if not 0 < int(given["MASTER_PORT"]) < 2**16:
        raise UserError(f"environment: MASTER_PORT must be from 1 to 65535, got {given['MASTER_PORT']}")
    return rank, world


def wait_asleep_if_busy() -> None:
    """Let OpenMP's threads sleep while they wait, where other programs use a fifth of the processors or more.

    By default they spin, which is fastest on a quiet machine and several times slower on a busy one.
    The variable is read when torch is loaded, so this comes before. Results do not depend on it. A choice of the
    user's own stands.
    """
    one_thread = os.environ.get("OMP_NUM_THREADS") == "1"
    if one_thread or "torch" in sys.modules or WAITING & os.environ.keys():
        return
    import psutil

    if psutil.cpu_percent(interval=0.1) >= BUSY:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def run_folder(name: str) -> Path:
    """A new folder for a run, outputs/``name``-TIME; ``Path()`` on processes that don't choose it."""
    if launched()[0]:
        return Path()
    return new_folder(Path("outputs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}")


def clean_environment() -> None:
    """Remove from the environment what ``launched`` does not go by: accelerate would read it, and fail or wait.

    That is all of a launch where this is the only process, other launchers' words, and accelerate's own settings.
    """
    _, world = launched()
    own = (*NEEDED, "LOCAL_WORLD_SIZE")
    for name, value in list(os.environ.items()):
        foreign = name.startswith(("PMI_", "MPI_LOCAL", "OMPI_COMM_", "MV2_COMM_", "ACCELERATE_"))
        if (foreign and name != "ACCELERATE_USE_CPU") or (name in own and (world == 1 or not value.strip())):
            del os.environ[name]


@dataclass(frozen=True)
class Training:
    """``cgrpo train`` as a process of its own, writing to log.txt in its run directory; what has begun is resumed.

    fresh    the words after ``cgrpo train`` for a run that has not begun
    gpus     above 1: so many processes, by torchrun
    threads  of each process; None: as many as there are
    owner    the process that it ends with where that is no parent; None: it outlives who started it
    variables  of the environment that it gets in place of its launcher's; None: unset
    """

    run: Path
    fresh: tuple[str, ...]
    gpus: int = 1
    threads: int | None = None
    owner: int | None = None
    variables: Mapping[str, str | None] = field(default_factory=dict)

    def command(self) -> list[str]:
        """Decided when it starts, so that a job that is queued again goes on."""
        several = ["torch.distributed.run", "--standalone", "--nproc_per_node", str(self.gpus), "-m"]
        words = ["--resume", str(self.run)] if (self.run / "metrics.jsonl").exists() else self.fresh
        return [sys.executable, "-m", *(several if self.gpus > 1 else []), "cgrpo", "train", *words]

    def environment(self) -> dict[str, str]:
        threads = {"OMP_NUM_THREADS": str(self.threads)} if self.threads else {}
        given = {**os.environ, **threads, **self.variables}
        return {name: value for name, value in given.items() if value is not None}

    def __call__(self) -> int:
        """Train to the end, on a node; the exit code, 1 where its owner has gone."""
        with (self.run / "log.txt").open("ab") as log:
            process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment()
            )
            try:
                while process.poll() is None:
                    if self.owner is not None and not _alive(self.owner):
                        return 1
                    time.sleep(0.2)
                return process.returncode
            finally:  # ended from outside, a time limit perhaps
                _end(process)

    def checkpoint(self) -> Any:
        """submitit's hook before a time limit or a preemption: the same once more, which goes on."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        pass
    return True


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kindly, so that torchrun ends its workers, then by force."""
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
