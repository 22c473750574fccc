"""One check: held-out pictures by the policy as it is now, scored beside the base's, without a trace elsewhere."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cgrpo.evaluation.guard.rules import Row, is_best, warnings
from cgrpo.evaluation.metrics import Scorer, metric_of
from cgrpo.evaluation.sampling import Processes, gather_parts, parts_in_turns
from cgrpo.evaluation.statistics import clusters_of
from cgrpo.policies.base import Policy
from cgrpo.rewards import scored
from cgrpo.types import Batch


class Guard:
    """The held-out tasks and their scorers. The base's pictures are made and scored once, at the first check.

    Tasks are worked on in parts of at most ``chunk``, the same whatever the number of processes; these take turns.
    """

    def __init__(
        self,
        policy: Policy,
        batch: Batch,
        scorers: dict[str, Scorer],
        sigmas: Tensor,
        processes: Processes,
        chunk: int,
    ):
        self.policy, self.batch, self.scorers, self.sigmas = policy, batch, scorers, sigmas
        self.processes = processes
        self.parts = policy.alike(batch, chunk)
        self.clusters = clusters_of(batch)
        self._base: dict[str, Tensor] = {}

    def check(self, iteration: int, before: Sequence[Row]) -> dict[str, Any]:
        """The row of a check after ``iteration`` iterations, ``before`` being the earlier ones; alike on all processes.

        The random state is the same afterwards.
        """
        with untouched(self.policy.device):
            if not self._base:
                with self.policy.reference():
                    self._base = self._scores()
            trained = self._scores()
        metrics = {name: self._metric(scorer, self._base[name], trained[name]) for name, scorer in self.scorers.items()}
        said = [warn.text for warn in warnings(metrics)]
        told = {"iteration": iteration, "unit": self.clusters.unit, "metrics": metrics}
        return told | {"warnings": said, "best": is_best(metrics, before)}

    def report(self) -> dict[str, float]:
        """What the scorers report of the last check, on this process; the next iteration's report is its own again."""
        numbers = {}
        for name, scorer in self.scorers.items():
            numbers |= {f"guard/{name}/{key}": value for key, value in scorer.score.report().items()}
        return numbers

    def _metric(self, scorer: Scorer, base_N: Tensor, trained_N: Tensor) -> dict[str, Any]:
        valid_N = base_N[~base_N.isnan()].double()
        return metric_of(scorer, base_N, trained_N, self.clusters.number_N) | {
            "spread": valid_N.std().item() if len(valid_N) > 1 else float("nan"),
            "failed": int((base_N.isnan() | trained_N.isnan()).sum()),
        }

    def _scores(self) -> dict[str, Tensor]:
        """Every scorer's scores [N] of all tasks, by the policy as it is."""
        own = [torch.zeros(0, len(self.scorers))]
        for number, images_NHWC in parts_in_turns(self.policy, self.sigmas, self.batch, self.parts, self.processes):
            batch = self.batch.select(self.parts[number])
            torch.manual_seed(number)  # for scorers that draw: alike in every check and whoever's part it is
            columns = [scored(name, scorer.score, images_NHWC, batch) for name, scorer in self.scorers.items()]
            own.append(torch.stack(columns, -1))
        found_NM = gather_parts(torch.cat(own), self.parts, self.processes)
        return dict(zip(self.scorers, found_NM.unbind(1), strict=True))


@contextmanager
def untouched(device: torch.device) -> Iterator[None]:
    """Afterwards the global random states are what they were."""
    python, numpy = random.getstate(), np.random.get_state()
    cuda = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=cuda):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
