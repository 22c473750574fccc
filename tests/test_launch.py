"""How a process begins: whether OpenMP's threads spin."""

import os
import sys

import psutil
import pytest

from cgrpo.launch import wait_asleep_if_busy


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
