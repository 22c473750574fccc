"""From pictures to credit: scores of all processes, when to stop for a broken reward, and the credit table."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future

import torch
from torch import Tensor

from cgrpo.algorithm import (
    Credit,
    CreditFunction,
    CreditSettings,
    Kind,
    constant_weights,
    credit_table,
    focal_weights,
    measured_weights,
    noise_weights,
    reward_weights,
    sigmoid_weights,
)
from cgrpo.config import CREDITS, GroupConfig, Weights
from cgrpo.errors import UserError
from cgrpo.rewards import Reward, scored
from cgrpo.rewards.several import subject_names
from cgrpo.training.runtime import Runtime
from cgrpo.types import Batch


class Scoring:
    """Scores this process's samples with every reward, and gathers those of the others.

    Rewards in the background score part by part, as ``begin`` hands the parts over, and meanwhile the caller may sample
    on. The others score all samples at once. Scores are kept nowhere: a run that is killed draws them again.
    """

    def __init__(self, rewards: Mapping[str, Reward], runtime: Runtime, group_size: int, limit: int):
        self.rewards, self.runtime, self.group_size = rewards, runtime, group_size
        self.broken = BrokenRewards(list(rewards), limit)
        self._rows: list[int] = []  # prompts that were handed over, and each reward's scores of them, part by part
        self._begun: dict[str, list[Future[Tensor]]] = {
            name: [] for name, reward in rewards.items() if reward.background
        }
        self._seconds: dict[str, float] = {}

    def begin(self, rows: Sequence[int], images_NHWC: Tensor, batch: Batch) -> None:
        """Let rewards in the background score the groups of the prompts ``rows``, in order behind earlier ones."""
        self._rows += rows
        for name, parts in self._begun.items():
            before = parts[-1] if parts else None
            parts.append(_in_thread(lambda name=name, before=before: self._score(name, images_NHWC, batch, before)))

    def __call__(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        """Scores [P, G, R] of all processes' samples. Raises UserError for a reward that stays broken.

        Of this process ``images_NHWC`` and ``batch`` have all samples; ``begin`` has had all of them, too.
        """
        own = {name: self._score(name, images_NHWC, batch) for name in self.rewards if name not in self._begun}
        order = torch.tensor(self._rows, dtype=torch.long).argsort()
        for name, parts in self._begun.items():
            own[name] = torch.cat([part.result() for part in parts]).view(-1, self.group_size)[order].flatten()
            parts.clear()
        self._rows.clear()
        columns = [own[name] for name in self.rewards]
        scores_NR = self.runtime.gather(torch.stack(columns, -1).to(self.runtime.device))
        scores_PGR = scores_NR.view(-1, self.group_size, len(columns)).cpu()
        self.broken.watch(scores_PGR)
        return scores_PGR

    def _score(self, name: str, images_NHWC: Tensor, batch: Batch, before: Future[Tensor] | None = None) -> Tensor:
        """A reward's scores, once it has made those of ``before``; its seconds are noted."""
        if before:
            before.result()
        start = time.perf_counter()
        scores_N = scored(name, self.rewards[name], images_NHWC, batch)
        self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - start
        return scores_N

    def numbers(self, scores_PGR: Tensor) -> dict[str, float]:
        """What to log of the last call: over all processes, but seconds and the rewards' own reports of this one."""
        numbers: dict[str, float] = {}
        for (name, reward), scores_PG in zip(self.rewards.items(), scores_PGR.unbind(-1), strict=True):
            valid = scores_PG[~scores_PG.isnan()]
            found = {
                "mean": valid.mean().item() if len(valid) else math.nan,
                "std": valid.std().item() if len(valid) > 1 else math.nan,
                "failed": scores_PG.isnan().sum().item(),
                "seconds": self._seconds.pop(name, math.nan),
            }
            numbers |= {f"reward/{name}/{key}": value for key, value in (found | reward.report()).items()}
        return numbers


def _in_thread(function: Callable[[], Tensor]) -> Future[Tensor]:
    """What ``function`` returns or raises, from a thread that does not keep the process from ending."""
    future: Future[Tensor] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


class BrokenRewards:
    """Stops a run in which a reward says nothing iteration after iteration. Single NaNs and flat groups pass.

    It says nothing where it fails on all samples of some group, or where no group has two different scores: the
    advantage of every sample is then 0.
    """

    def __init__(self, names: Sequence[str], limit: int):
        self._failed, self._flat = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
        self._limit = limit

    def watch(self, scores_PGR: Tensor) -> None:
        for name, scores_PG in zip(self._failed, scores_PGR.unbind(-1), strict=True):
            self._count(self._failed, name, bool(scores_PG.isnan().all(-1).any()), "was NaN for whole groups")
            high_P = scores_PG.nan_to_num(-math.inf).amax(-1)  # both infinite where nothing was scored
            low_P = scores_PG.nan_to_num(math.inf).amin(-1)
            flat = not (high_P > low_P).any()
            self._count(self._flat, name, flat, "gave no group two different scores")

    def _count(self, running: dict[str, int], name: str, silent: bool, how: str) -> None:
        running[name] = running[name] + 1 if silent else 0
        if running[name] >= self._limit:
            raise UserError(
                f"reward {name!r} {how} {self._limit} iterations running; "
                "fix the reward, or raise training.max_failed_groups"
            )


class CreditTable:
    """Makes the credit table from an iteration's scores, as the tables ``shaping`` and ``weights`` say.

    names: of the rewards, in the order of the scores; sigmas: the table's steps [K + 1]; kind, noise_level: of the
    noise that a step draws, for weights by noise.
    """

    def __init__(self, cfg: GroupConfig, names: Sequence[str], sigmas: Tensor, kind: Kind, noise_level: float):
        self.shaping, self.clamp = cfg.shaping, cfg.training.clamp
        self.function: CreditFunction = CREDITS.load(cfg.shaping.type)
        prompt_K = prompt_weights(cfg.weights, cfg.sampling.steps)
        identity = subject_names("identity", cfg.weights.subjects)
        self.weights_KR = reward_weights(prompt_K, names, identity=identity, others=cfg.weights.others)
        weighted = [name for name, weight_K in zip(names, self.weights_KR.T, strict=True) if weight_K.any()]
        focal = self.shaping.focal_reward
        self.settings = CreditSettings(
            cfg.shaping.alpha,
            cfg.shaping.recentre,
            cfg.shaping.conflict_penalty,
            weighted.index(focal) if focal in weighted else None,
            tuple(number for number, name in enumerate(weighted) if name in identity),
        )
        self.step_K = noise_weights(sigmas, kind, noise_level) if cfg.weights.by_noise else None
        self.ease = list(names).index(self.shaping.focal_reward) if self.shaping.focal else None

    def __call__(self, scores_PGR: Tensor) -> Credit:
        credit = credit_table(scores_PGR, self.weights_KR, self.function, self.settings, self.clamp)
        group_P = None if self.ease is None else focal_weights(scores_PGR[..., self.ease], self.shaping.focal)
        return credit.emphasised(self.step_K, group_P)


def prompt_weights(weights: Weights, steps: int) -> Tensor:
    """The prompt reward's weight at each of ``steps`` steps [K], as the table ``weights`` says."""
    match weights.type:
        case "constant":
            return constant_weights(steps, weights.prompt)
        case "measured":
            return measured_weights(weights.measured)
        case _:
            return sigmoid_weights(steps, weights.high, weights.low, inverted=weights.type == "inverted")
