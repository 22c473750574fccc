"""Run by the process tests: ``cgrpo train`` with, on demand, a fault (the first argument).

no-sum ARGUMENTS...     gradients are not summed over processes
SIGNAL=N ARGUMENTS...   SIGKILL, SIGTERM or SIGUSR1 in iteration N, between rollout and update; of several processes, to
                        the last one alone
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
        Runtime.check_agreement = lambda self, parameters: None
    if fault.startswith("SIG"):
        name, _, at = fault.partition("=")
        score, calls = Scoring.__call__, []

        def score_and_signal(self, *arguments):
            calls.append(None)
            if len(calls) == int(at) + 1 and self.runtime.rank == self.runtime.world - 1:
                os.kill(os.getpid(), getattr(signal, name))
            return score(self, *arguments)

        Scoring.__call__ = score_and_signal
    return cgrpo(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
