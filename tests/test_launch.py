"""How a process begins: whether OpenMP's threads spin, and which folder is its own."""

import os
import sys
from pathlib import Path

import psutil
import pytest

from cgrpo.extensions import is_installed
from cgrpo.launch import run_folder, wait_asleep_if_busy


@pytest.mark.parametrize(
    ("used", "variables", "policy"),
    [
        (3.0, {}, None),
        (50.0, {}, "PASSIVE"),
        (50.0, {"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE"),
        (50.0, {"GOMP_SPINCOUNT": "1000"}, None),
        (50.0, {"OMP_NUM_THREADS": "1"}, None),
        (50.0, {"OMP_NUM_THREADS": "2"}, "PASSIVE"),
    ],
)
def test_threads_sleep_on_a_busy_machine_alone(
    monkeypatch: pytest.MonkeyPatch, used: float, variables: dict[str, str], policy: str | None
) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval: used)
    wait_asleep_if_busy()
    assert os.environ.get("OMP_WAIT_POLICY") == policy


def test_runs_of_one_second_have_a_folder_each(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    folders = {run_folder("toybox") for _ in range(5)}
    assert len(folders) == 5 and all(folder.is_dir() and folder.parent.name == "outputs" for folder in folders)


def test_a_folder_is_no_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tracked_here").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert is_installed("torch") and not is_installed("tracked_here") and not is_installed("nothing_of_this_name")
