"""Run by the process tests: ``cgrpo train`` with, on demand, a fault (the first argument).

no-sum ARGUMENTS...     gradients are not summed over processes
kill=N ARGUMENTS...     SIGKILL in the middle of iteration N, between rollout and update
none ARGUMENTS...
"""

import os
import signal
import sys

from cgrpo.app.main import main as cgrpo
from cgrpo.training.runtime import Runtime
from cgrpo.training.scoring import Scoring


def main(arguments: list[str]) -> int:
    fault, *arguments = arguments
    if fault == "no-sum":
        Runtime.sum_gradients = lambda self, parameters: None
        Runtime.agree = lambda self, parameters: True
    if fault.startswith("kill="):
        at, score = int(fault.removeprefix("kill=")), Scoring.__call__
        calls = []

        def score_and_die(self, *arguments):
            calls.append(None)
            if len(calls) == at + 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return score(self, *arguments)

        Scoring.__call__ = score_and_die
    return cgrpo(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
