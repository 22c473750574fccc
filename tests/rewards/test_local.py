"""Which hosts no proxy stands before, and which nobody else can reach."""

from __future__ import annotations

import socket

import pytest

from cgrpo.rewards.network import is_local, is_loopback


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST.", "vllm.localhost", "127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::"],
)
def test_this_machine(host: str) -> None:
    assert is_local(host) and is_local(socket.gethostname())


@pytest.mark.parametrize("host", ["", "example.org", "localhost.example.org", "10.0.0.1", "192.168.1.2", "fe80::1"])
def test_others(host: str) -> None:
    assert not is_local(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "::ffff:0.0.0.0", socket.gethostname(), "10.0.0.1", ""])
def test_others_may_reach_what_listens_there(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_nobody_else_reaches_what_listens_there(host: str) -> None:
    assert is_loopback(host)
