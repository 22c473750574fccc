"""A run whose reward server dies: restarted, the run goes on; gone for good, it stops and can be resumed."""

from __future__ import annotations

import json
import socket
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support import reward_server
from support.warm import Started

import cgrpo
from cgrpo.app.main import main
from cgrpo.app.materials import check_materials
from cgrpo.app.run import train
from cgrpo.data import ToyboxSource
from cgrpo.errors import UserError
from cgrpo.rewards.remote.client import RemoteReward
from cgrpo.training.record import RunRecord


class Host:
    """The machine with the server: ``start`` it, or ``watch`` over it, which starts it again once when it dies."""

    def __init__(self, folder: Path):
        self.fuse = folder / "fuse"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.processes: list[Started] = []

    def start(self, wait: bool = True) -> Started:
        process = Started(reward_server.main, [str(self.port), str(self.fuse)])
        self.processes.append(process)
        while wait and process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return process
            except OSError:
                time.sleep(0.05)
        return process

    def watch(self, process: Started) -> threading.Thread:
        def again() -> None:
            process.wait()
            self.start(wait=False)

        thread = threading.Thread(target=again)
        thread.start()
        return thread

    def settings(self, patience: float) -> tuple[str, ...]:
        return (
            "rewards.identity.type=remote",
            f"rewards.identity.url=http://127.0.0.1:{self.port}",
            "rewards.identity.reward=bright",
            "rewards.identity.axis=identity",
            f"rewards.identity.patience={patience}",
        )


@pytest.fixture
def host(tmp_path):
    made = Host(tmp_path)
    yield made
    for process in made.processes:
        process.kill()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Makes the run without any server, once."""
    made: dict[str, Path] = {}

    def run(cfg) -> Path:
        if "run" not in made:
            made["run"] = train(cfg, tmp_path_factory.mktemp("whole") / "run")
        return made["run"]

    return run


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter" / "pytorch_lora_weights.safetensors")


def same(a: Path, b: Path) -> bool:
    left, right = adapter(a), adapter(b)
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def test_killed_in_the_middle_of_a_request_and_restarted(small, host, undisturbed, tmp_path):
    host.fuse.write_text("2")
    first = host.start()
    guard = host.watch(first)
    run = train(small(*host.settings(patience=60)), tmp_path / "run")
    guard.join()
    assert first.poll() == -9 and len(host.processes) == 2
    assert same(run, undisturbed(small()))
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row.get("reward/identity/retries", 0) > 0 for row in rows] == [False, True, False]
    assert all(row["reward/identity/failed"] == 0 for row in rows)


def test_gone_for_good_stops_the_run_which_can_be_resumed(small, small_arguments, host, undisturbed, tmp_path, capfd):
    host.fuse.write_text("3")
    process, run, patience = host.start(), tmp_path / "run", 2
    remote = [part for setting in host.settings(patience) for part in ("--set", setting)]
    died: list[float] = []
    clock = threading.Thread(target=lambda: died.append((process.wait(), time.monotonic())[1]))
    clock.start()
    assert main(["train", *small_arguments, *remote, "--out", str(run)]) == 2
    stopped = time.monotonic()
    clock.join()
    assert process.poll() == -9
    assert stopped - died[0] > patience - 0.1
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "no answer for 2 s" in line]
    assert line.startswith("cgrpo: reward 'identity' at http://127.0.0.1:")
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2

    host.start()
    assert main(["train", "--resume", str(run)]) == 0
    assert same(run, undisturbed(small()))
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 3


def test_a_resumed_run_wants_the_same_remote_checkpoint(small, tmp_path):
    def reward(checkpoint: str) -> dict[str, RemoteReward]:
        made = RemoteReward.__new__(RemoteReward)
        made.checkpoint = checkpoint
        return {"prompt": made}

    def check(*checkpoint: str, resumed: bool) -> None:
        rewards = reward(*checkpoint) if checkpoint else {}
        check_materials(record, small(), ToyboxSource(0), policy, rewards, "toybox", resumed=resumed)

    record, policy = RunRecord.create(tmp_path / "run", small()), cgrpo.load_policy()
    check("a" * 64, resumed=False)
    check("a" * 64, resumed=True)
    with pytest.raises(UserError, match="rewards.prompt, on its server, has changed"):
        check("b" * 64, resumed=True)
