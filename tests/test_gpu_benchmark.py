"""The GPU benchmark on a CPU: every stage at tiny size, and what is left when one fails, hangs or lacks a package."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.undrawn import undrawn
from support.warm import Started, module

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    undrawn(monkeypatch)


def lines_of(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize(
    "name", ["chip", "flux", "attention", "int8", "compiled", "rewards", "toybox", "exact", "klein"]
)
def test_a_stage_goes_its_whole_road(name: str) -> None:
    rows = list(importlib.import_module(f"stages.{name}").figures(True))
    assert rows and all("figure" in row and "out_of_memory" not in row for row in rows)
    seconds = [row["seconds"] for row in rows if "seconds" in row]
    assert all(value > 0 for value in seconds) and (seconds or name == "exact")
    if name == "exact":  # one machine: a repeated, a resumed and a guarded run are the first one
        assert {row["figure"]: row["largest_difference"] for row in rows} == dict.fromkeys(
            ("repeated run", "resumed run", "guarded run"), 0.0
        )
        assert all(row["random_rewards_alike"] for row in rows)


def test_the_whole_iteration_takes_the_fastest_replay_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = importlib.import_module("stages.whole")
    monkeypatch.setattr(whole, "cuda", lambda: True)
    replay = {"stage": "flux", "figure": "replay step"}
    rows = [
        {"stage": "chip", "figure": "machine", "memory_gib": 80},
        {**replay, "checkpointing": "off", "micro_batch": 4, "seconds": 0.5, "peak_gib": 75},  # no room for AdamW
        {**replay, "checkpointing": "off", "micro_batch": 2, "seconds": 0.6, "peak_gib": 60},
        {**replay, "checkpointing": "full", "micro_batch": 4, "seconds": 1.6, "peak_gib": 40},
        {**replay, "checkpointing": "off", "micro_batch": 8, "out_of_memory": True},
        {"stage": "flux", "ended": "done", "seconds": 60},
    ]
    assert whole.fastest(rows) == ("off", 2)
    assert whole.fastest([]) == ("full", 1)


def test_out_of_memory_is_a_figure() -> None:
    def work() -> None:
        raise torch.OutOfMemoryError("no room")

    assert importlib.import_module("stages.harness").measure(work) == {"out_of_memory": True}


def test_process_groups_start(tmp_path: Path) -> None:
    lines = tmp_path / "figures.jsonl"
    ended = Started(module, ["stages.processes", str(lines), "--tiny"]).wait()
    assert ended.returncode == 0, ended.stderr
    ddp, fsdp = lines_of(lines)
    assert ddp["code"] == 0, ddp["why"]
    assert fsdp["whole_after_forward"] == 0
    assert fsdp["largest_difference"] <= 1e-6 < fsdp["largest_gradient"]


def test_a_stage_that_hangs_or_lacks_a_package_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = importlib.import_module("real_size")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "diffusers.py").write_text("raise ModuleNotFoundError(\"No module named 'diffusers'\")\n")
    monkeypatch.setenv("PYTHONPATH", f"{broken}:{BENCHMARKS}:{BENCHMARKS.parent / 'src'}")
    lines = tmp_path / "figures.jsonl"
    assert runner.run("chip", lines, tmp_path, 120, True)["ended"] == "done"
    measured = lines.read_bytes()
    lacking = runner.run("flux", lines, tmp_path, 120, True)
    assert lacking["ended"].startswith("failed") and "diffusers" in lacking["why"]
    hanging = runner.run("toybox", lines, tmp_path, 0.2, True)
    assert hanging["ended"] == "stopped after 0 s"
    assert lines.read_bytes() == measured


def test_a_torn_line_is_closed_and_passed_over(tmp_path: Path) -> None:
    runner = importlib.import_module("real_size")
    lines = tmp_path / "figures.jsonl"
    lines.write_text('{"stage": "chip", "figure": "copy"}\n{"stage": "flux", "fig')
    runner.write(lines, {"stage": "flux", "ended": "failed (-9)"})
    assert runner.read(lines) == [{"stage": "chip", "figure": "copy"}, {"stage": "flux", "ended": "failed (-9)"}]


def test_no_time_is_said_and_no_figure_is_a_failure(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "real_size.py"), "--out", str(tmp_path), "--seconds", "1", "--tiny"]
    done = subprocess.run([*command, "--stages", "chip", "flux"], capture_output=True, text=True)
    assert done.returncode == 1
    assert [row["ended"] for row in lines_of(tmp_path / "figures.jsonl")] == ["done", "not begun", "not begun"]
