"""The serving process itself: it says where it listens, asks for its token, and ends quietly on Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import httpx

from cgrpo.config import parse_config
from cgrpo.data import ToyboxSource
from cgrpo.rewards.remote import RemoteSettings

CODE = """
from cgrpo.app.rewards import serve
serve(host="0.0.0.0", port=0, rewards=["prompt"], token_variable="TOKEN")
"""


def test_from_start_to_end(monkeypatch):
    from cgrpo.rewards import make_reward

    env = os.environ | {"TOKEN": "secret", "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen([sys.executable, "-c", CODE], stderr=subprocess.PIPE, text=True, env=env)
    try:
        assert process.stderr is not None
        said = next(line for line in process.stderr if line.startswith("serving"))
        (port,) = re.findall(r"^serving prompt on http://0.0.0.0:(\d+)$", said)
        url = f"http://127.0.0.1:{port}"
        monkeypatch.setenv("TOKEN", "secret")
        remote = make_reward("prompt", RemoteSettings(url=url, reward="prompt", token_variable="TOKEN", patience=10))
        assert httpx.get(f"{url}/health").status_code == 401
        health = httpx.get(f"{url}/health", headers={"authorization": "Bearer secret"}).json()
        assert list(health["rewards"]) == ["prompt"] and health["max_body"] == 512 * 2**20
        source = ToyboxSource(0, "validation", 0.0, 1)
        local = make_reward("prompt", parse_config({}, "test").rewards["prompt"])
        arguments = source.oracle(range(4)), source.batch(range(4))
        assert remote(*arguments).tolist() == local(*arguments).tolist()
        process.send_signal(signal.SIGINT)
        assert process.wait(600) == 0
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.wait()
