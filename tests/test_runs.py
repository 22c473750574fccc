"""runs/train.sh: what it would call is a valid command line, and a recipe that a plan can be made of."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.command_line import parse

from cgrpo.config import load_config
from cgrpo.plan import plan

SCRIPT = Path(__file__).parents[1] / "runs" / "train.sh"
RUNS = [  # recipe, GPUS, a GPU that the run fits, how many there are
    ("klein-24gb", "1", "rtx-4090-24gb", 1),
    ("uno-24gb", "1", "rtx-4090-24gb", 1),
    ("uno-24gb-short", "1", "rtx-4090-24gb", 1),
    ("klein", "1", "a100-80gb", 1),
    ("klein", "8", "a100-80gb", 8),
    ("uno-dinoseg-hpsv3", "1", "a100-80gb", 1),
    ("uno-dinoseg-hpsv3", "8", "a100-80gb", 8),
    ("uno-dinoseg-hpsv3", "2x8", "a100-80gb", 16),
]
each = pytest.mark.parametrize(("recipe", "gpus", "gpu", "count"), RUNS)


def calls(folder: Path, *arguments: str, **more: str) -> list[list[str]]:
    """The arguments of every cgrpo that the script runs, torchrun's own taken off; nothing is run."""
    record = f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv))\n"
    for name in ("cgrpo", "torchrun"):
        (folder / name).write_text(record)
        (folder / name).chmod(0o755)
    env = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "MASTER": "host0", "NODE": "0", **more}
    done = subprocess.run([SCRIPT, *arguments], env=env, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(("-m" in line) == ("torchrun" in line[0]) for line in lines)
    return [line[line.index("-m") + 2 :] if "-m" in line else line[1:] for line in lines]


@each
def test_the_same_command_resumes(recipe: str, gpus: str, gpu: str, count: int, tmp_path: Path) -> None:
    begun = tmp_path / "outputs" / f"{recipe}-{gpus}"
    begun.mkdir(parents=True)
    (begun / "config.json").write_text("{}")
    more = {"RESUME": "1"} if gpus == "2x8" else {}
    called = calls(tmp_path, recipe, gpus, "train.json", "--set", "training.iterations=9", **more)
    train = parse(called[-1])
    assert (train.resume, train.recipe, train.out) == (begun.relative_to(tmp_path), None, None)
    assert train.settings == ["data.source=train.json", "training.iterations=9"]  # of another set it is refused


@each
def test_the_script_calls_valid_commands(recipe: str, gpus: str, gpu: str, count: int, tmp_path: Path) -> None:
    *encodes, train = [parse(row) for row in calls(tmp_path, recipe, gpus, "train.json", "--set", "training.seed=3")]
    cfg = load_config(train.recipe, train.settings)
    assert (cfg.training.seed, cfg.data.source) == (3, "train.json") and len(encodes) == (gpus != "2x8")
    assert plan(cfg, gpu=gpu, gpus=count).fits
    for encode in encodes:  # what is encoded is what training reads
        assert str(encode.out) == cfg.data.cache
        theirs = load_config(encode.recipe, encode.settings).policy
        for name in ("path", "autoencoder", "clip", "t5", "dtype", "reference_rule", "reference_size", "several_size"):
            assert getattr(theirs, name) == getattr(cfg.policy, name)


def test_an_argument_is_missing() -> None:
    done = subprocess.run([SCRIPT, "klein", "8"], capture_output=True, text=True)
    assert done.returncode and "RECIPE GPUS MANIFEST" in done.stderr
