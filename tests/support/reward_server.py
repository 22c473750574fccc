"""Clients of a reward server; and, run by the remote tests, a server that can be made to die amid a request."""

import os
import signal
from pathlib import Path

from cgrpo.rewards import FunctionReward
from cgrpo.rewards.remote import RemoteSettings
from cgrpo.rewards.remote.client import RemoteReward
from cgrpo.serving import listen, run
from cgrpo.serving.server import create_app
from support import exact_rewards


def connect(url: str, reward: str = "x", axis: str = "prompt", **settings) -> RemoteReward:
    return RemoteSettings(url=url, reward=reward, axis=axis, **settings).build("mine", "cpu")  # pyright: ignore


class Mortal(FunctionReward):
    def __init__(self, fuse: Path):
        super().__init__(exact_rewards.brightness, "identity")
        self._fuse, self._calls = fuse, 0

    def __call__(self, images_NHWC, batch):
        self._calls += 1
        if self._fuse.exists() and int(self._fuse.read_text()) == self._calls:
            self._fuse.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(images_NHWC, batch)


def main(arguments: list[str]) -> None:
    """PORT FUSE: serve exact_rewards.brightness as "bright"; if the file FUSE holds the number of a call, the process
    is killed (SIGKILL) in that call, and the file is gone."""
    port, fuse = arguments
    run(
        create_app({"bright": Mortal(Path(fuse))}, max_body=2**24),
        listen("127.0.0.1", int(port)),
        "127.0.0.1",
        "bright",
    )
