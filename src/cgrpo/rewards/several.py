"""Identity of several subjects in one picture: which of its regions stands for which reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from cgrpo.errors import UserError
from cgrpo.rewards.base import Axis, Offloaded, Reward
from cgrpo.types import Batch

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

FLOOR = 0.0  # of a subject that is missing: the cosine of what has nothing in common
Several = Literal["mean", "min"]


def assigned(similarity_SI: Tensor, allowed_SI: Tensor) -> Tensor:
    """Each subject's similarity with the region that is assigned to it [S], FLOOR where none is.

    No region counts twice, so a subject that is there twice leaves the other one missing. The assignment has the
    greatest sum (the Hungarian method). ``allowed_SI`` says which regions were found under a subject's phrase. A
    similarity below FLOOR counts as FLOOR. NaN for all where the picture has no region.
    """
    import torch

    subjects, regions = similarity_SI.shape
    if not regions:
        return similarity_SI.new_full((subjects,), torch.nan)
    value_SI = similarity_SI.clamp(min=FLOOR).masked_fill(~allowed_SI, FLOOR)
    pairs = assignment(value_SI)
    scores_S = similarity_SI.new_full((subjects,), FLOOR)
    scores_S[pairs[0]] = value_SI[pairs]
    return scores_S


def assignment(value_SI: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(subjects, regions) of the pairs with the greatest sum; each subject and each region is in one at most."""
    from scipy.optimize import linear_sum_assignment

    return linear_sum_assignment(value_SI.double().numpy(), maximize=True)


def joined(scores_NS: Tensor, several: Several) -> Tensor:
    """One score per picture [N] of its subjects' (NaN beyond a task's last): their mean or minimum.

    NaN where a task has no subject, or one of them could not be scored.
    """
    import torch

    rows = [row[: _count(row)] for row in scores_NS]
    nothing = scores_NS.new_tensor(torch.nan)
    return torch.stack([(row.mean() if several == "mean" else row.amin()) if len(row) else nothing for row in rows])


def _count(row_S: Tensor) -> int:
    """Up to the last number."""
    numbers = (~row_S.isnan()).nonzero()
    return int(numbers.max()) + 1 if len(numbers) else 0


class _Once:
    """The scores of every subject by ``reward``, kept for the last pictures: several rewards ask for them."""

    def __init__(self, reward: Reward):
        self.reward = reward
        self._last: tuple[Tensor, Batch, Tensor] | None = None

    def __call__(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        if self._last is None or self._last[0] is not images_NHWC or self._last[1] is not batch:
            self._last = images_NHWC, batch, self.reward.each(images_NHWC, batch)
        return self._last[2]


class OneSubject(Reward):
    """A reward's score of the subject of one reference, counted from 1; without a ``subject`` of all, joined."""

    def __init__(self, each: _Once, subject: int | None = None):
        self._each, self.subject = each, subject
        self.axis: Axis = each.reward.axis
        self.unit = each.reward.unit

    def score(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        scores_NS = self._each(images_NHWC, batch)
        return joined(scores_NS, "mean") if self.subject is None else scores_NS[:, self.subject - 1]

    def report(self) -> dict[str, float]:
        return self._each.reward.report() if self.subject is None else {}


def subject_names(name: str, subjects: int) -> list[str]:
    """What the rewards of single subjects are called: "identity_1", "identity_2"; ``name`` alone where there is one."""
    return [f"{name}_{number + 1}" for number in range(subjects)] if subjects > 1 else [name]


def per_subject(rewards: Mapping[str, Reward], name: str, subjects: int) -> dict[str, Reward]:
    """``rewards``, with each subject's score of the reward ``name`` as a reward beside it, if there are several.

    Raises UserError for a reward that has one score for all references.
    """
    if subjects == 1:
        return dict(rewards)
    reward = rewards[name]
    inner = reward.reward if isinstance(reward, Offloaded) else reward
    if type(inner).each is Reward.each:
        cure = "choose dino-seg, siglip2 with a segmenter, or face; or set weights.subjects = 1"
        raise UserError(f"weights.subjects = {subjects}: reward {name!r} has one score for all references", cure)
    each = _Once(reward)
    single = {one: OneSubject(each, n + 1) for n, one in enumerate(subject_names(name, subjects))}
    return {**rewards, name: OneSubject(each), **single}
