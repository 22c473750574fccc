"""The rewards of a rollout: scores of all processes, seconds, failures, and when to stop for a broken one."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from cgrpo.errors import UserError
from cgrpo.rewards import Reward, scored
from cgrpo.training.runtime import Runtime
from cgrpo.types import Batch


class Scoring:
    """Scores this process's samples with every reward, and gathers those of the others."""

    def __init__(self, rewards: Mapping[str, Reward], runtime: Runtime, group_size: int, limit: int):
        self.rewards, self.runtime, self.group_size = rewards, runtime, group_size
        self.broken = BrokenRewards(list(rewards), limit)
        self._seconds: dict[str, float] = {}

    def __call__(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        """Scores [P, G, R] of all processes' samples. Raises UserError for a reward that stays broken."""
        columns = []
        for name, reward in self.rewards.items():
            start = time.perf_counter()
            columns.append(scored(name, reward, images_NHWC, batch))
            self._seconds[name] = time.perf_counter() - start
        scores_NR = self.runtime.gather(torch.stack(columns, -1).to(self.runtime.device))
        scores_PGR = scores_NR.view(-1, self.group_size, len(columns)).cpu()
        self.broken.watch(scores_PGR)
        return scores_PGR

    def numbers(self, scores_PGR: Tensor) -> dict[str, float]:
        """What to log of the last call: over all processes, but seconds and the rewards' own reports of this one."""
        numbers: dict[str, float] = {}
        for (name, reward), scores_PG in zip(self.rewards.items(), scores_PGR.unbind(-1), strict=True):
            valid = scores_PG[~scores_PG.isnan()]
            found = {
                "mean": valid.mean().item() if len(valid) else math.nan,
                "std": valid.std().item() if len(valid) > 1 else math.nan,
                "failed": scores_PG.isnan().sum().item(),
                "seconds": self._seconds.get(name, math.nan),
            }
            numbers |= {f"reward/{name}/{key}": value for key, value in (found | reward.report()).items()}
        return numbers


class BrokenRewards:
    """Stops a run in which a reward says nothing iteration after iteration. Single NaNs and flat groups pass.

    It says nothing where it fails on all samples of a group, or gives every group's samples one score.
    """

    def __init__(self, names: Sequence[str], limit: int):
        self._failed, self._flat = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
        self._limit = limit

    def watch(self, scores_PGR: Tensor) -> None:
        for name, scores_PG in zip(self._failed, scores_PGR.unbind(-1), strict=True):
            self._count(self._failed, name, bool(scores_PG.isnan().all(-1).any()), "was NaN for whole groups")
            flat = bool((scores_PG == scores_PG[:, :1]).all())
            self._count(self._flat, name, flat, "gave all samples of each group one score")

    def _count(self, running: dict[str, int], name: str, silent: bool, how: str) -> None:
        running[name] = running[name] + 1 if silent else 0
        if running[name] >= self._limit:
            raise UserError(
                f"reward {name!r} {how} {self._limit} iterations running; "
                "mend the reward, or raise training.max_failed_groups"
            )
