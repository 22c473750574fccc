"""One process = two processes; killed and resumed = uninterrupted; same seed = same run; layouts don't matter."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load
from support import worker
from support.runs import ADAPTER, GUARDED, JUDGED, distance, in_processes, moved

from cgrpo.app.run import train
from cgrpo.config import load_config
from cgrpo.training.checkpoint import config_fingerprint


def by_torchrun(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Two processes as a user starts them, imports, agent and end included."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}  # or they fight for the cores
    return subprocess.run([*launch, worker.__file__, "none", *arguments], capture_output=True, text=True, env=env)


def checks(folder: Path) -> str:
    return (folder / "guard.jsonl").read_text()


def test_two_processes_give_the_run_of_one(small, small_arguments, tmp_path):
    """The guard's three parts of tasks, too: one process has a second part."""
    settings = ("policy.dtype=float64", *GUARDED, *JUDGED, "guard.every=3", "guard.tasks=6", "guard.batch=2")
    given = [part for setting in settings for part in ("--set", setting)]
    one = train(small(*settings), tmp_path / "one")
    two = by_torchrun("train", *small_arguments, *given, "--out", str(tmp_path / "two"))
    assert two.returncode == 0, two.stderr
    assert moved(one) > 1e-4
    assert distance(one, tmp_path / "two") <= 1e-8
    assert checks(one) == checks(tmp_path / "two")

    double = ["--set", "policy.dtype=float64"]
    apart = in_processes(2, "no-sum", "train", *small_arguments, *double, "--out", str(tmp_path / "apart"))
    assert apart.returncode == 0, apart.stderr
    assert distance(one, tmp_path / "apart") > 1e-6  # the comparison can fail


def test_two_processes_with_a_sharded_base_give_the_run_of_one(small, small_arguments, manifest, tmp_path):
    """The second process earns no credit and only goes through the motions; both make the held-out pictures.

    The guard's are three parts by the references' sizes and number, so the second is idle in the second turn.
    """
    settings = (
        "policy.dtype=float64",
        "rewards.identity.type=support.exact_rewards:brightness_of_even_tasks",
        "rewards.prompt.type=support.exact_rewards:brightness_of_even_tasks",
        "policy.checkpointing=full",
        "evaluation.enabled=true",
        "evaluation.subjects=2",
        "evaluation.prompts_per_subject=2",
        f"guard.source={manifest}",
        "guard.every=3",
        *JUDGED,
    )
    one = train(small(*settings), tmp_path / "one")
    given = [part for setting in (*settings, "training.parallel=fsdp2") for part in ("--set", setting)]
    two = in_processes(2, "none", "train", *small_arguments, *given, "--out", str(tmp_path / "two"))
    assert two.returncode == 0, two.stderr
    assert moved(one) > 1e-4
    assert distance(one, tmp_path / "two") <= 1e-8
    assert (tmp_path / "two" / "scores.jsonl").read_text() == (one / "scores.jsonl").read_text()
    assert checks(one) == checks(tmp_path / "two")

    alone = in_processes(1, "none", "train", *small_arguments, *given, "--out", str(tmp_path / "alone"))
    assert alone.returncode == 2 and "needs several processes" in alone.stderr  # asked for and not active: an error


def test_killed_in_mid_iteration_and_resumed_is_uninterrupted_bit_for_bit(small, small_arguments, tmp_path):
    """The guard's checks and its best adapter included; the killed run got further than its last checkpoint.

    It is killed while rewards score in the background, of which the whole run has none.
    """
    settings = (
        "sampling.batch=4",
        *GUARDED,
        *JUDGED,
        "training.iterations=4",
        "training.checkpoint_every=2",
        "training.learning_rate=0.01",
    )
    background = ("rewards.identity.background=true", "rewards.prompt.background=true")
    given = [part for setting in (*settings, *background) for part in ("--set", setting)]
    whole = train(small(*settings), tmp_path / "whole")
    killed = in_processes(1, "SIGKILL=3", "train", *small_arguments, *given, "--out", str(tmp_path / "killed"))
    assert killed.returncode == -9
    assert checks(tmp_path / "killed").count("\n") == 3 and (tmp_path / "killed" / "checkpoints" / "step-2").exists()
    again = train(small(*settings, *background), resume=tmp_path / "killed")
    assert distance(whole, again) == 0
    states = [(folder / "checkpoints" / "step-4" / "state.safetensors").read_bytes() for folder in (whole, again)]
    assert states[0] == states[1] and len(load(states[0])) > 10
    rows = [(folder / "metrics.jsonl").read_text().count("\n") for folder in (whole, again)]
    assert rows == [4, 4]
    assert checks(whole) == checks(again) and checks(whole).count("\n") == 4
    best = [{path.relative_to(run): path.read_bytes() for path in run.rglob("best/*")} for run in (whole, again)]
    assert best[0] == best[1] and len(best[0]) > 1  # in the run, and in its checkpoints


@pytest.mark.parametrize(("name", "processes"), [("SIGTERM", 2), ("SIGUSR1", 1)])
def test_a_signal_ends_the_run_with_a_checkpoint_of_the_iteration_under_way(
    small, small_arguments, tmp_path, name, processes
):
    rare = "training.checkpoint_every=9"
    stopped = in_processes(
        processes, f"{name}=1", "train", *small_arguments, "--set", rare, "--out", str(tmp_path / "stopped")
    )
    assert stopped.returncode == 128 + getattr(signal, name), stopped.stderr
    line = f"cgrpo: {name}: stopped after iteration 1; cgrpo train --resume {tmp_path / 'stopped'} continues the run"
    assert line in stopped.stderr
    assert [path.name for path in (tmp_path / "stopped" / "checkpoints").iterdir()] == ["step-2"]
    if processes == 1:
        whole = train(small(rare), tmp_path / "whole")
        assert distance(whole, train(small(rare), resume=tmp_path / "stopped")) == 0


def test_a_finished_run_can_be_extended_as_if_it_had_been_longer(small, tmp_path):
    whole = train(small(), tmp_path / "whole")
    part = train(small("training.iterations=2"), tmp_path / "part")
    assert distance(whole, train(small(), resume=part)) == 0
    assert (part / "config.json").read_text() == (whole / "config.json").read_text()


def test_same_seed_same_run_other_seed_other_run(small, tmp_path):
    runs = [train(small(f"training.seed={seed}"), tmp_path / name) for seed, name in ((1, "a"), (1, "b"), (2, "c"))]
    files = [(folder / ADAPTER).read_bytes() for folder in runs]
    assert files[0] == files[1] != files[2]  # so that a file's hash tells a run's result
    assert distance(runs[0], runs[2]) > 1e-5


@pytest.mark.parametrize("size", [1, 3, 64])
def test_the_micro_batch_only_bounds_memory(small, tmp_path, size):
    exact = ("policy.dtype=float64", "training.iterations=2")
    a = train(small(*exact), tmp_path / "a")
    b = train(small(*exact, f"training.micro_batch={size}"), tmp_path / "b")
    assert distance(a, b) <= 1e-9


def test_a_fingerprint_holds_what_the_numbers_depend_on_and_no_more():
    def fingerprint(*settings: str, recipe: str = "toybox") -> str:
        return config_fingerprint(load_config(recipe, settings).model_dump(mode="json"))

    assert fingerprint() != fingerprint("shaping.alpha=0.4") != fingerprint("objective.kl=0.1")
    free = ("training.iterations=7", "guard.every=3", "policy.offload=true", "rewards.prompt.chunk=2")
    constant = "training.schedule=constant"  # a falling learning rate depends on the length
    assert fingerprint(constant) == fingerprint(constant, *free)
    assert fingerprint() == fingerprint(*free[1:]) != fingerprint(free[0])
    assert fingerprint(recipe="sft") != fingerprint()
