"""Run by the remote tests: a reward server that can be made to die in the middle of a request.

python reward_server.py PORT FUSE      serves exact_rewards.brightness as "bright"; if the file FUSE holds the number
                                       of a call, the process is killed (SIGKILL) in that call, and the file is gone
"""

import os
import signal
import sys
from pathlib import Path

import exact_rewards

from cgrpo.rewards import FunctionReward
from cgrpo.serving.listening import listen, run
from cgrpo.serving.server import create_app


class Mortal(FunctionReward):
    _calls = 0

    def __call__(self, images_NHWC, batch):
        self._calls += 1
        if fuse.exists() and int(fuse.read_text()) == self._calls:
            fuse.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(images_NHWC, batch)


port, fuse = int(sys.argv[1]), Path(sys.argv[2])
rewards = {"bright": Mortal(exact_rewards.brightness, "identity")}
run(create_app(rewards, max_body=2**24), listen("127.0.0.1", port))
