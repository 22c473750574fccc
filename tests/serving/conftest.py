"""``serving(rewards)`` -> the address of a server in a thread of this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping

import pytest
import uvicorn

from cgrpo.rewards import Reward
from cgrpo.serving import listen
from cgrpo.serving.server import create_app

MEBIBYTE = 2**20


class Running:
    """A server; ``stop`` frees its port."""

    def __init__(self, rewards: Mapping[str, Reward], port: int, **settings):
        self.bound = listen("127.0.0.1", port)
        self.port = self.bound.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        app = create_app(rewards, **{"max_body": MEBIBYTE, **settings})
        config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self.bound],), daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self.bound.close()


@pytest.fixture
def serving() -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def start(rewards: Mapping[str, Reward], port: int = 0, **settings) -> Running:
        started.append(Running(rewards, port, **settings))
        return started[-1]

    yield start
    for running in started:
        running.stop()
