"""Trainings as jobs of submitit: its local executor, and SLURM's commands played by scripts; the training is a stub."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import cgrpo
from cgrpo.app.main import main
from cgrpo.app.reproduction import reproduce
from cgrpo.launch import Training
from cgrpo.reproduce import Cluster, Results, jobs_of, load_table
from cgrpo.reproduce.jobs import Submitted

TABLE = """
title = "Two rows"
source = "Table 0"
columns = []
recipe = { toybox = "toybox", full = "uno-dinoseg-hpsv3" }
rows = [
    { name = "naive", set = ["shaping.type=none", "weights.type=constant"] },
    { name = "broken", set = ["shaping.type=tanh"] },
]
"""
# Stands in for `python -m cgrpo train`: `-m` looks where it is started first. All else of the package is the real one.
STUB = """
import json, os, sys, time
from pathlib import Path
words = sys.argv[2:]
resumed = "--resume" in words
run = Path(words[words.index("--resume" if resumed else "--out") + 1])
with (run / "metrics.jsonl").open("a") as file:
    file.write(json.dumps({"resumed": resumed, "threads": os.environ.get("OMP_NUM_THREADS")}) + "\\n")
(run / "parent").write_text(str(os.getppid()))
while Path("shut").exists():
    time.sleep(0.05)
if "shaping.type=tanh" in words:
    sys.exit("no such thing as a broken row")
(run / "environment.json").write_text('{"device": "a card of the node"}')
metric = {"role": "judge", "axis": "prompt"}
(run / "summary.json").write_text(json.dumps({"iterations": 2, "seconds": {"training": 1.0}, "metrics": {"m": metric}}))
with (run / "scores.jsonl").open("w") as file:
    for method, score in (("base", 0.25), ("trained", 0.5)):
        row = {"method": method, "subject": "toy", "prompt_index": 0, "prompt": "a toy", "seed": 0, "metric": "m"}
        row |= {"protocol": "one", "score": score, "picture": "", "error": None}
        file.write(json.dumps(row) + "\\n")
"""
SBATCH = """#!/bin/sh
echo sbatch >> calls; cp "$1" script
SLURM_JOB_ID=7 setsid sh script > /dev/null 2>&1 &
echo Submitted batch job 7
"""
SRUN = """#!/bin/sh
while [ "${1#--}" != "$1" ]; do case "$1" in --output|--error) shift 2;; *) shift;; esac; done
exec "$@"
"""
SCONTROL = """#!/bin/sh
echo "$@" >> calls
SLURM_JOB_ID=7 setsid sh script > /dev/null 2>&1 &
"""
SACCT = """#!/bin/sh
printf 'JobID|State|NodeList\\n7|%s|node\\n' "$(cat state)"
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where everything is started; `python -m cgrpo` is the stub there."""
    (tmp_path / "cgrpo").mkdir()
    (tmp_path / "cgrpo" / "__init__.py").write_text(f"__path__.append({str(Path(cgrpo.__file__).parent)!r})\n")
    (tmp_path / "cgrpo" / "__main__.py").write_text(STUB)
    (tmp_path / "two.toml").write_text(TABLE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def slurm(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (place / "bin").mkdir()
    for name, text in {"sbatch": SBATCH, "srun": SRUN, "scontrol": SCONTROL, "sacct": SACCT}.items():
        (place / "bin" / name).write_text(text)
        (place / "bin" / name).chmod(0o755)
    (place / "state").write_text("RUNNING")
    monkeypatch.setenv("PATH", f"{place / 'bin'}:{os.environ['PATH']}")
    return place


def wait_for(found: Callable[[], object]) -> None:
    deadline = time.monotonic() + 300
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ended(process: Submitted) -> int | None:
    wait_for(lambda: process.poll() is not None)
    return process.poll()


def test_the_local_executor_trains_and_a_failed_row_is_marked(place: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["reproduce", "two.toml", "--seeds", "1", "--jobs", "2", "--cluster", "local", "--out", "out"]
    assert main(words) == 1
    assert "1 of 2 trainings done" in capsys.readouterr().out
    assert "no such thing as a broken row" in (place / "out" / "reproduce.md").read_text()
    (job,) = jobs_of(load_table("two.toml"), "toybox", "mild", [0])["naive"]
    result = Results(place / "out" / "results").find(job.key)
    assert result["device"] == "a card of the node" and result["metrics"]["m"]["trained"] == [0.5]
    begun = (place / "out" / "runs" / job.key / "metrics.jsonl").read_text()
    assert '"resumed": false' in begun and '"threads": null' not in begun and begun.count("\n") == 1


def test_a_local_job_ends_with_whoever_waits_for_it(place: Path) -> None:
    (place / "shut").touch()
    training = Training(place / "run", ("toybox", "--out", str(place / "run")), owner=2**22 + 1)  # no process has it
    training.run.mkdir()
    assert training() == 1 and not (training.run / "summary.json").exists()


def test_slurm_submits_once_and_queues_again(slurm: Path) -> None:
    """Who waits for a job leaves and comes back; the job reaches its time limit, and its training goes on."""
    (slurm / "shut").touch()
    run = slurm / "run"
    run.mkdir()
    training = Training(run, ("toybox", "--out", str(run)))
    asked = ["partition=long", "timeout_min=30", "gpus_per_node=1"]
    first = Cluster("slurm", slurm / "cluster", asked)(training)
    wait_for((run / "parent").exists)
    script = (slurm / "script").read_text()
    assert "--partition=long" in script and "--time=30" in script and "--gpus-per-node=1" in script
    first.stop()
    again = Cluster("slurm", slurm / "cluster", asked)(training)
    assert again.poll() is None and (slurm / "calls").read_text() == "sbatch\n"
    node = int((run / "parent").read_text())
    (run / "parent").unlink()
    os.kill(node, signal.SIGUSR2)
    wait_for((run / "parent").exists)
    assert (slurm / "calls").read_text() == "sbatch\nrequeue 7\n"
    (slurm / "shut").unlink()
    assert ended(again) == 0
    begun = [line[:16] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert begun == ['{"resumed": fals', '{"resumed": true']


def test_a_job_that_slurm_ended_is_told(slurm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("submitit.SlurmJob._results_timeout_s", 0)
    (slurm / "bin" / "srun").write_text("#!/bin/sh\n")
    (slurm / "state").write_text("OUT_OF_MEMORY")
    training = Training(slurm / "run", ())
    training.run.mkdir()
    assert ended(Cluster("slurm", slurm / "cluster")(training)) == 1
    assert "OUT_OF_MEMORY" in (training.run / "log.txt").read_text().splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--cluster", "slurm"], "srun"),
        (["--cluster", "local", "--cluster-set", "timeout_min"], "key=value"),
        (["--cluster", "local", "--cluster-set", "timeout_min=soon"], "timeout_min"),
        (["--cluster", "local", "--cluster-set", "wishes=3"], "wishes"),
        (["--cluster", "local", "--cluster-set", "nodes=2"], "one node"),
        (["--cluster-set", "partition=long"], "--cluster"),
        (["--scale", "full", "--train"], "evaluation.source"),
        (["figure1", "--scale", "full", "--train"], "figure1"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], said: str, place: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    assert main(["reproduce", "two.toml", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_full_scale_trains_by_torchrun(place: Path) -> None:
    """A process a card; each row's change is shown beside the paper's."""
    training = Training(place, ("kontext",), gpus=4)
    torchrun = ["torch.distributed.run", "--standalone", "--nproc_per_node", "4"]
    assert training.command()[1:] == ["-m", *torchrun, "-m", "cgrpo", "train", "kontext"]
    asked = ["data.source=train.json", "evaluation.source=test.json"]
    done = reproduce(["two.toml"], place / "out", seeds=1, settings=asked, scale="full")
    (board,) = done.boards
    assert board.world == "full" and board.lines[0].change["m"].mean == 0.25 and len(done.failed) == 1
    assert "a card of the node" in (place / "out" / "reproduce.md").read_text()
