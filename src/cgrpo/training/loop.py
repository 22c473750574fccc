"""What the methods' loops share: set-up, tasks, conditions, micro-batches, the optimizer's step, an iteration's end.

Each method is a folder with its settings, which import no torch, and its loop: one ``run`` that reads top to bottom.
"""

from __future__ import annotations

import itertools
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from PIL.Image import Image
from torch import Tensor

from cgrpo.algorithm import Credit
from cgrpo.config import Config, GroupConfig
from cgrpo.data import Source, derive, task_indices
from cgrpo.errors import UserError
from cgrpo.extensions import resolve
from cgrpo.policies.base import Policy
from cgrpo.rewards import Reward
from cgrpo.rewards.base import to_tensor
from cgrpo.rewards.several import per_subject
from cgrpo.training.optimizer import Average, make_optimizer, set_learning_rate
from cgrpo.training.runtime import Runtime
from cgrpo.training.scoring import Scoring
from cgrpo.types import Batch, Condition

C = TypeVar("C", bound=Config)
G = TypeVar("G", bound=GroupConfig)


@dataclass(frozen=True)
class Iteration:
    """What one iteration leaves for the run's record: its numbers, and this process's tasks and pictures.

    metrics has "gradient_norm", and "reward/NAME/mean" of every reward (NaN where a method scores nothing).
    """

    number: int
    metrics: dict[str, float]
    batch: Batch
    images_NHWC: Tensor


class Timer:
    """``with timer("sample"): ...``; on a GPU the queue is drained at each border, so the seconds are true."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = now()
        yield
        self._seconds[phase] = self._seconds.get(phase, 0.0) + now() - start

    def seconds(self) -> dict[str, float]:
        """``seconds/<phase>`` of every phase, and their sum as ``seconds/total``."""
        return {f"seconds/{phase}": value for phase, value in self._seconds.items()} | {
            "seconds/total": sum(self._seconds.values())
        }


def now() -> float:
    """A clock in seconds; on a GPU the queue is drained first."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class Loop(ABC, Generic[C]):
    """A method's loop: configuration, policy, rewards and tasks in, one ``Iteration`` after another out."""

    def __init__(self, cfg: C, policy: Policy, rewards: dict[str, Reward], source: Source, runtime: Runtime):
        self.cfg, self.policy, self.rewards, self.source, self.runtime = cfg, policy, rewards, source, runtime
        self.parameters = list(policy.trainable_parameters().values())
        self.optimizer = make_optimizer(cfg.training, self.parameters)
        self.average = Average(policy, cfg.training.average)
        self.positions = runtime.local(*cfg.share())
        self.timer = Timer()
        self._before = self._norms()

    @abstractmethod
    def run(self, first: int) -> Iterator[Iteration]:
        """Iterations ``first`` .. cfg.training.iterations - 1, or fewer where ``stopped`` says why."""

    @property
    def stopped(self) -> str:
        """Why the run ends early, "" while it doesn't."""
        return ""

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps alongside adapter and optimizer. Loading a checkpoint writes into these tensors."""
        return self.average.state("average")

    def iterations(self, first: int) -> Iterator[int]:
        """The numbers of the iterations from ``first`` on, each with its learning rate set and its clock at 0."""
        for number in range(first, self.cfg.training.iterations):
            self.timer = Timer()
            set_learning_rate(self.optimizer, self.cfg.training, number)
            yield number

    def tasks(self, number: int) -> list[int]:
        """This process's tasks of an iteration, as indices of the source."""
        tasks = task_indices(self.cfg.training.seed, number, self.cfg.share()[0], self.source.size)
        return [tasks[position] for position in self.positions]

    def encode(self, batch: Batch, most: int) -> list[tuple[list[int], Condition]]:
        """The batch in parts of at most ``most`` tasks whose references have equal sizes: (rows, their condition).

        With a sharded base all processes must make equally many forwards, so each task is a part of its own. So it is
        where a prefix is shared: that of one task alone is then in memory.
        """
        alike = self.policy.alike(batch, 1 if self.runtime.sharded or self.policy.has_prefix else max(1, most))
        return list(zip(alike, self.policy.encode_parts(batch, alike), strict=True))

    def step(self, accepts: Callable[[float], bool] = lambda norm: True) -> float:
        """Sum gradients over processes, clip, step if ``accepts(norm)``; returns the norm before clipping."""
        self.runtime.sum_gradients(self.parameters)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.cfg.training.max_grad_norm).item()
        if not math.isfinite(norm):
            raise UserError(
                f"the gradient's norm is {norm}; lower training.learning_rate, or look for a broken reward in "
                "metrics.jsonl, or for a model that gives NaN"
            )
        if accepts(norm):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def ended(self, number: int, numbers: dict[str, float], batch: Batch, images_NHWC: Tensor) -> Iteration:
        """The iteration, with its seconds and peak memory among its numbers.

        Raises UserError after the first iteration for an adapter that had a gradient and did not move.
        """
        if number == 0 and numbers["gradient_norm"] > 0 and torch.equal(self._before, self._norms()):
            raise UserError("the adapter did not move in the first iteration; is training.learning_rate far too small?")
        return Iteration(number, numbers | self.timer.seconds() | self.runtime.peak_memory(), batch, images_NHWC)

    def _norms(self) -> Tensor:
        """One norm per parameter: the vector changes when any parameter does."""
        return torch.stack([parameter.detach().double().norm() for parameter in self.parameters])


def make_loop(
    cfg: Config, policy: Policy, rewards: dict[str, Reward], source: Source, runtime: Runtime
) -> Loop[Config]:
    """The loop of the configuration's method over ``source``."""
    return resolve(cfg.loop)(cfg, policy, rewards, source, runtime)


class PairLoop(Loop[C]):
    """What loops on given pictures share, without rollouts: noise and levels by pair, no scores."""

    def noise_and_levels(self, name: str, number: int, x0_NLC: Tensor) -> tuple[Tensor, Tensor]:
        """Noise [N, L, C] and logit-normal levels [N] of this process's pairs, a function of the seed and ``name``."""
        streams = [derive(self.cfg.training.seed, name, number, position) for position in self.positions]
        noise_NLC = torch.stack([torch.randn(x0_NLC.shape[1:], generator=stream) for stream in streams])
        sigma_N = torch.sigmoid(torch.cat([torch.randn(1, generator=stream) for stream in streams]))
        return noise_NLC.to(x0_NLC), sigma_N.to(x0_NLC)

    def unscored(self) -> dict[str, float]:
        """The rewards' numbers of an iteration that scores nothing: NaN."""
        return {f"reward/{name}/{what}": math.nan for name in self.rewards for what in ("mean", "std")}

    def shown(self, pictures: Sequence[Image]) -> Tensor:
        """Pictures of any size for the run's record, [N, H, W, 3] in the policy's size."""
        size = (self.policy.width, self.policy.height)
        return to_tensor([picture if picture.size == size else picture.resize(size) for picture in pictures])


@dataclass(frozen=True)
class Part:
    """Groups of prompts with references of equal sizes, sampled together.

    rows         the prompts' places in this process's batch
    positions    their places among all processes' prompts
    cond         the condition of the N = P * G samples
    x0_NLC       the finished samples
    sample_M     of the M pairs that are trained, the sample (0 .. N - 1)
    step_M       and the true step whose credit the pair has
    input_M      which input of the velocity it has, on the CPU: pairs with one number, which follow each other, have
                 equal latents, level and condition, and share a forward and backward
    """

    rows: list[int]
    positions: list[int]
    cond: Condition
    x0_NLC: Tensor
    sample_M: Tensor
    step_M: Tensor
    input_M: Tensor


P = TypeVar("P", bound=Part)


class MicroBatch(NamedTuple, Generic[P]):
    """B pairs of a part, with their credit; ``weight`` turns the sum of their losses into a share of the mean.

    ``counts``: how many pairs in a row share each of the velocity's inputs.
    ``cond``, ``base``: the condition of the part's samples, for the policy and for its reference.
    A weight of 0 marks a forward and backward that a process makes only because others still have work.
    """

    part: P
    index_B: Tensor
    credit_B: Tensor
    weight: float
    counts: list[int]
    cond: Any
    base: Any


class GroupLoop(Loop[G]):
    """What loops share that draw groups of samples and read the credit table."""

    def __init__(self, cfg: G, policy: Policy, rewards: dict[str, Reward], source: Source, runtime: Runtime):
        super().__init__(cfg, policy, rewards, source, runtime)
        self.sigmas = policy.sigmas(cfg.sampling.steps, cfg.sampling.shift)
        self.rewards = rewards = per_subject(rewards, "identity", cfg.weights.subjects)
        self.scoring = Scoring(rewards, runtime, cfg.training.group_size, cfg.training.max_failed_groups)

    def sampled(
        self, batch: Batch, conds: Sequence[tuple[list[int], Condition]], sample: Callable[[list[int], Condition], P]
    ) -> tuple[list[P], Tensor]:
        """The parts that ``sample`` draws, and their pictures in the order of this process's prompts.

        While a part is drawn, rewards in the background score those before it.
        """
        group, parts, images = self.cfg.training.group_size, [], {}
        for rows, cond in conds:
            parts.append(sample(rows, cond))
            images_NHWC = self.policy.decode(parts[-1].x0_NLC)
            self.scoring.begin(rows, images_NHWC, batch.select(rows).repeat(group))
            images |= zip(rows, images_NHWC.split(group), strict=True)
        return parts, torch.cat([images[row] for row in sorted(images)])

    def micro_batches(self, parts: Sequence[P], credit: Credit, update: int, kl: float) -> list[MicroBatch[P]]:
        """The pairs that this process trains in an update: an equal share of every group's samples.

        Pairs without credit are left out unless the loss has a ``kl`` term. With a sharded base all processes take
        equally many turns, since they gather its blocks together.
        """
        training, group = self.cfg.training, self.cfg.training.group_size
        # Every sample trains equally many pairs, so their number over all processes needs no exchange.
        pairs = sum(len(part.sample_M) for part in parts) * self.runtime.world // training.updates_per_rollout
        work: list[MicroBatch[P]] = []
        for part in parts:
            sample_M = part.sample_M.cpu()
            number_M = torch.tensor(part.positions)[sample_M // group] * group + sample_M % group
            credit_M = credit.of_pairs(number_M, part.step_M.cpu())
            useful_M = (credit_M != 0) | (kl > 0)
            mine = (useful_M & (sample_M % group % training.updates_per_rollout == update)).nonzero()[:, 0]
            if not len(mine):
                continue
            _, counts_U = part.input_M[mine].unique_consecutive(return_counts=True)  # U: inputs of the velocity
            runs = counts_U.split(int(training.micro_batch))
            for index_B, counts in zip(mine.split([int(run.sum()) for run in runs]), runs, strict=True):
                pairs_B = index_B.to(part.sample_M.device)
                credit_B = credit_M[index_B]
                work.append(MicroBatch(part, pairs_B, credit_B, 1 / pairs, counts.tolist(), part.cond, part.cond))
        if self.runtime.sharded:
            nothing = torch.zeros(1, dtype=torch.long, device=parts[0].sample_M.device)
            idle = MicroBatch(parts[0], nothing, torch.zeros(1), 0.0, [1], parts[0].cond, parts[0].cond)
            work += [idle] * (self.runtime.largest(len(work)) - len(work))
        return work

    def prefixed(self, work: Sequence[MicroBatch[P]], kl: float) -> Iterator[MicroBatch[P]]:
        """The micro-batches in order. Those of a part share its prefix (``Policy.shared_prefix``), where there is one.

        The prefix's backward follows the part's last. With a sharded base each micro-batch has its own, as processes
        have unequal numbers of them in a part.
        """
        if self.runtime.sharded or not self.policy.has_prefix:
            yield from work
            return
        for _, micros in itertools.groupby(work, key=lambda micro: id(micro.part)):
            own, group = list(micros), self.cfg.training.group_size
            tasks, base = own[0].cond.select(slice(None, None, group)), own[0].base
            if kl > 0:
                with torch.no_grad(), self.policy.reference(), self.policy.shared_prefix(tasks) as frozen:
                    base = frozen.repeat(group)
            with self.policy.shared_prefix(tasks) as shared:
                cond = shared.repeat(group)
                for micro in own:
                    yield micro._replace(cond=cond, base=base)
