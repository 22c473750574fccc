"""Small runs: what guards them, what they leave behind, how far two lie apart, runs of several processes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from cgrpo.app import run as command
from cgrpo.app.main import main
from support import worker
from support.warm import Started

ADAPTER = "adapter/pytorch_lora_weights.safetensors"
# A check after every iteration, on four tasks.
GUARDED = ("guard.every=1", "guard.tasks=4", "guard.batch=4")
JUDGED = (
    "guard.scorers.light.type=support.exact_rewards:brightness",
    "guard.scorers.light.axis=identity",
    "guard.scorers.red.type=support.exact_rewards:redness",
)


def referenced_tasks(folder: Path, *rows: Sequence[str], **more: str) -> None:
    """Pictures 0.png to 2.png of unequal sizes, and tasks.json: a task for each row of their names."""
    for number, size in enumerate([(64, 64), (96, 64), (64, 80)]):
        Image.effect_noise(size, 60 + 20 * number).convert("RGB").save(folder / f"{number}.png")
    tasks = [
        {"prompt": f"a red cube {'in the snow ' * n}", "subject": "cube", "references": row, **more}
        for n, row in enumerate(rows)
    ]
    (folder / "tasks.json").write_text(json.dumps(tasks))


def referenced_run(policy: Path, *more: str) -> list[str]:
    """Settings of a small and quick run of ``policy`` on the tasks beside it: 2 prompts x 4 samples, exact rewards."""
    return [
        f"policy.path={policy}", "policy.height=32", "policy.width=48", "policy.reference_size=64",
        "policy.dtype=float32", "policy.rank=2", f"data.source={policy.parent / 'tasks.json'}", "sampling.steps=4",
        "rewards.identity.type=support.exact_rewards:brightness", "rewards.prompt.type=support.exact_rewards:redness",
        "training.iterations=2", "training.checkpoint_every=1", "training.prompts_per_iteration=2",
        "training.group_size=4", "training.updates_per_rollout=2", "training.micro_batch=5",
        "training.learning_rate=0.2", "objective.clip=1e-3", "logging.tracker=none", *more,
    ]  # fmt: skip


def as_arguments(settings: Sequence[str]) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / ADAPTER)


def distance(a: Path, b: Path) -> float:
    """The largest difference between the adapters of two runs."""
    left, right = adapter(a), adapter(b)
    assert left.keys() == right.keys()
    return max((left[key].double() - right[key].double()).abs().max().item() for key in left)


def moved(folder: Path) -> float:
    """Largest entry of an up matrix, 0 at the start: how far training went."""
    return max(value.abs().max().item() for key, value in adapter(folder).items() if "lora_B" in key)


def state(folder: Path, step: int) -> dict[str, torch.Tensor]:
    """A checkpoint's tensors."""
    return load_file(folder / "checkpoints" / f"step-{step}" / "state.safetensors")


def in_processes(count: int, fault: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``cgrpo`` in processes of its own, with a fault of support/worker.py or "none"."""
    return Started(worker.main, [fault, *arguments], count).wait()


def one_line(capfd: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The error line of a command that must fail with exit code 2."""
    capfd.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    error = [line for line in capfd.readouterr().err.splitlines() if line.startswith("cgrpo: ")]
    assert len(error) == 1
    return error[0]


def interrupted(monkeypatch: pytest.MonkeyPatch, writes: int, train: Callable[[], Any]) -> None:
    """``train`` until its ``writes``-th iteration is to be written, which a Ctrl-C then prevents."""
    write, calls = command._write_iteration, []

    def stop(*arguments: Any) -> None:
        calls.append(None)
        if len(calls) == writes:
            raise KeyboardInterrupt
        write(*arguments)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(command, "_write_iteration", stop)
        train()
