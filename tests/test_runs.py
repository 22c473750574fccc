"""The scripts in runs/: what they would call is a valid command line, and a recipe that a plan can be made of."""

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

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "runs").glob("*.sh"))
GPUS = {"paper-8gpu": ("a100-80gb", 8), "single-80gb": ("a100-80gb", 1), "single-24gb": ("rtx-4090-24gb", 1),
        "two-nodes": ("a100-80gb", 16), "klein-8gpu": ("a100-80gb", 8), "klein-80gb": ("a100-80gb", 1),
        "klein-24gb": ("rtx-4090-24gb", 1)}  # fmt: skip
FOLDERS = {"paper-8gpu": "paper", "klein-8gpu": "klein", "single-24gb": "uno-24gb"}  # where not the script's own name


def calls(script: Path, folder: Path, *arguments: str, **more: str) -> list[list[str]]:
    """The arguments of every cgrpo that ``script`` runs, torchrun's own taken off; nothing is run."""
    record = f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv))\n"
    for name in ("cgrpo", "torchrun"):
        (folder / name).write_text(record)
        (folder / name).chmod(0o755)
    env = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "MASTER": "host0", "NODE": "0", **more}
    done = subprocess.run([script, *arguments], env=env, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return [row[row.index("-m") + 2 :] if "-m" in row else row[1:] for row in found]


@pytest.mark.parametrize("script", [s for s in SCRIPTS if s.stem != "cpu"], ids=lambda path: path.stem)
def test_run_again_after_a_crash_it_goes_on(script: Path, tmp_path: Path) -> None:
    begun = tmp_path / "outputs" / FOLDERS.get(script.stem, script.stem)
    begun.mkdir(parents=True)
    (begun / "config.json").write_text("{}")
    more = {"RESUME": "1"} if script.stem == "two-nodes" else {}  # nodes that start one after another must agree
    called = calls(script, tmp_path, "train.json", "--set", "training.iterations=9", **more)
    train = parse(called[-1])
    assert (train.resume, train.recipe, train.out) == (begun.relative_to(tmp_path), None, None)
    assert train.settings == ["data.source=train.json", "training.iterations=9"]  # of another set it is refused


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_script_calls_valid_commands(script: Path, tmp_path: Path) -> None:
    given = () if script.stem == "cpu" else ("train.json",)
    made = [parse(row) for row in calls(script, tmp_path, *given, "--set", "training.seed=3")]
    train = made[-1]
    cfg = load_config(train.recipe, train.settings)
    assert cfg.training.seed == 3
    if script.stem == "cpu":
        return
    assert cfg.data.source == "train.json"
    gpu, count = GPUS[script.stem]
    assert plan(cfg, gpu=gpu, gpus=count).fits
    for encode in made[:-1]:  # what is encoded is what training reads
        assert str(encode.out) == cfg.data.cache
        theirs = load_config(encode.recipe, encode.settings).policy
        for name in ("path", "autoencoder", "clip", "t5", "dtype", "reference_rule", "reference_size", "several_size"):
            assert getattr(theirs, name) == getattr(cfg.policy, name)
