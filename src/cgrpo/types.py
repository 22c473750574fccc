"""The values that rooms hand to each other, and the legend of shape suffixes.

Every tensor with more than one axis carries its axes in its name:

    P  prompts in a batch          K  denoising steps, k = 0 (noise) .. K-1 (image)
    G  samples in a group          R  rewards, in the order of their names
    N  samples, N = P * G          L  tokens
    M  trained (sample, step)      C  channels
       pairs                       D  axes of a position id (FLUX: 3)

``credit_KPG[k, p, g]`` is thus a number for step k of sample g of prompt p.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:  # torch and PIL stay out of `import cgrpo.types`
    from PIL.Image import Image
    from torch import Tensor


@dataclass(frozen=True)
class Task:
    """One task of a data set: show this subject as the prompt says.

    ``references`` and ``target`` are files, or members of an archive (``file.zip!/member``); ``subject`` is
    the class word or phrase that a segmenter looks for, ``phrases`` a subject's for each reference where they show
    several; ``masks`` are pictures of the references' subjects,
    bright on dark, one for each reference or none at all; pixels above ``mask_threshold`` (0 to 255) are
    the subject; ``meta`` is carried along untouched.
    """

    id: str
    prompt: str
    references: tuple[Path, ...]
    subject: str = ""
    target: Path | None = None
    phrases: tuple[str, ...] = ()
    masks: tuple[Path | None, ...] = ()
    mask_threshold: int = 127
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def subject_id(self) -> str:
        """Which subject it shows, from ``meta``; "" where nothing is said, and its references tell."""
        subject = self.meta.get("subject_id")
        return "" if subject is None else str(subject)


@dataclass(frozen=True)
class Batch:
    """P tasks with their pictures read (any size; RGB, but where transparency is to be dropped as UNO does).

    ``subjects`` are the phrases for the segmenter. ``spec`` is the toy world's ground truth
    where there is one; only judges may look at it. ``reference_masks`` are the data set's own
    masks of the references (bright = subject, each of its reference's size; None = has none).
    ``subject_ids`` say which subject each task shows, "" where the data set doesn't. ``phrases`` has a
    subject's for each reference of a task that shows several; () for the others, None where no task does.
    """

    ids: tuple[str, ...]
    prompts: tuple[str, ...]
    references: tuple[tuple[Image, ...], ...]
    subjects: tuple[str, ...]
    spec: tuple[Any, ...] | None = None
    reference_masks: tuple[tuple[Image | None, ...], ...] | None = None
    subject_ids: tuple[str, ...] | None = None
    phrases: tuple[tuple[str, ...], ...] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def as_rgb(self) -> Batch:
        """The same with every reference converted to RGB, for whoever can't take other modes."""
        if all(picture.mode == "RGB" for pictures in self.references for picture in pictures):
            return self
        return replace(self, references=tuple(tuple(picture.convert("RGB") for picture in p) for p in self.references))

    def select(self, rows: slice | Sequence[int]) -> Batch:
        """The tasks in ``rows``, in that order."""
        return self._pick(range(len(self))[rows] if isinstance(rows, slice) else rows)

    def repeat(self, times: int) -> Batch:
        """Every task ``times`` times in a row: P tasks become N = P * times samples."""
        return self._pick([row for row in range(len(self)) for _ in range(times)])

    def _pick(self, rows: Sequence[int]) -> Batch:
        picked: dict[str, Any] = {}
        for column in fields(self):
            values = getattr(self, column.name)
            picked[column.name] = None if values is None else tuple(values[row] for row in rows)
        return Batch(**picked)


class Condition(Protocol):
    """What a policy is conditioned on, a row for each sample; encoded once per task. Its fields are the policy's own.

    The same for a negative prompt, where there is one: whatever ``velocity`` needs beside x and sigma is in here.
    """

    def __len__(self) -> int: ...

    def repeat(self, times: int) -> Self:
        """Every task ``times`` times in a row: P tasks become N = P * times samples."""
        ...

    def select(self, index: slice | Sequence[int] | Tensor) -> Self:
        """The samples at ``index`` (slice, numbers or long tensor), in that order."""
        ...


@dataclass(frozen=True)
class Rollout:
    """What sampling leaves behind: the last latents, and the M transitions that will be trained.

    x_NLC      latents at sigma = 0, ready to be decoded
    sample_M   which sample (0 .. N-1) a trained transition belongs to
    step_M     its true step index k (0 .. K-2)
    before_MLC, after_MLC   the latents on both sides of the transition
    logp_M     log-probability of the transition under the policy that sampled it
    """

    x_NLC: Tensor
    sample_M: Tensor
    step_M: Tensor
    before_MLC: Tensor
    after_MLC: Tensor
    logp_M: Tensor
