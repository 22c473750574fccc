"""The pictures of a series: the same held-out tasks and seeds for every adapter and the base, drawn and measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cgrpo.data.archives import open_picture
from cgrpo.errors import UserError
from cgrpo.evaluation.adapters.series import BASE
from cgrpo.evaluation.benchmark.generate import Progress, Sampled
from cgrpo.evaluation.benchmark.suite import Suite, SuiteRow
from cgrpo.evaluation.sampling import Processes
from cgrpo.pictures import Alpha
from cgrpo.policies.adapters.keys import State
from cgrpo.policies.lora import LoraPolicy
from cgrpo.rewards.base import Axis, to_pictures, to_tensor
from cgrpo.rewards.measures import COPY_SIDE, Measure
from cgrpo.toybox.world import SCENES
from cgrpo.types import Batch

PLAIN = "without the subject"  # the kind of prompts that do not name it
FIRST_PLAIN = 90  # the number of the first of them; datasets have fewer prompts per subject
PLAIN_PROMPTS = (
    "a mountain lake at dawn",
    "a busy street in the rain",
    "a bowl of fruit on a wooden table",
    "a portrait of an old sailor",
    "a red sports car in a garage",
    "a spaceship above the clouds",
)


def series_suite(suite: Suite, skip: int = 0, limit: int = 0, *, references: bool) -> Suite:
    """``limit`` tasks of ``suite`` (0: all) behind the first ``skip``, and prompts that do not name the first subject.

    The latter tell whether the subject or its style leaks into other pictures. They are drawn without a reference, as
    the tasks are where ``references`` is False. Raises UserError where no task is left.
    """
    chosen = suite.rows[skip : skip + limit if limit else None]
    if not chosen:
        raise UserError(f"--skip {skip}: there are {len(suite.rows)} tasks")
    first = chosen[0]
    toys = suite.conditions["benchmark"] == "toybox"
    texts = tuple(SCENES.values()) if toys else PLAIN_PROMPTS
    plain = [
        SuiteRow(
            chosen[-1].number + 1 + n, first.subjects[:1], first.words[:1], (), FIRST_PLAIN + n, text, prompt_kind=PLAIN
        )
        for n, text in enumerate(texts)
    ]
    rows = chosen if references else [replace(row, references=()) for row in chosen]
    conditions = {**suite.conditions, "tasks": [skip, len(chosen)], "references": references}
    return replace(suite, rows=[*rows, *plain], conditions=conditions)


class Drawer:
    """Draws the pictures of ``suite`` into ``out``/pictures/NAME, by the base and by adapters on top of it."""

    def __init__(self, policy: LoraPolicy[Any], sigmas: Tensor, suite: Suite, out: Path, seeds: int, alpha: Alpha):
        self.policy, self.out = policy, out
        self.maker = Sampled(policy, sigmas, suite, seeds=seeds, alpha=alpha)
        self.settings = dict(self.maker.settings)
        self.count = sum(len(block.seeds) for block in self.maker.blocks)

    def folder(self, name: str) -> Path:
        return self.out / "pictures" / name

    def __call__(
        self,
        name: str,
        adapter: State | None,
        fingerprint: str,
        strength: float,
        processes: Processes,
        progress: Progress | None = None,
    ) -> None:
        """Draw what is not there yet. Raises UserError where the folder holds other pictures, or one can't be drawn."""
        self.maker.settings = self.settings | {"adapter": fingerprint, "strength": strength}
        over = self.policy.reference() if adapter is None else self.policy.attached(adapter, strength)
        with over:
            made = self.maker(self.folder(name), processes, progress)
        for row, error in made.failed.items():
            raise UserError(f"{name}, {row}: {error}")


# -- measures --------------------------------------------------------------------------------------


def _small(images_NHWC: Tensor) -> Tensor:
    pictures = [picture.resize((COPY_SIDE, COPY_SIDE)) for picture in to_pictures(images_NHWC)]
    return to_tensor(pictures).float() / 255


class Diversity(Measure):
    """Mean absolute difference to the task's other seeds, all at 32 x 32 pixels. [0, 1]; NaN of a single seed.

    In pixels, as ``CopyPaste``, and not in the identity reward's features: pictures of one subject are to be alike in
    those, so every gain in identity would count as a loss of diversity. A task's seeds must be scored together.
    """

    axis: Axis = "picture"
    unit = "mean absolute difference to the task's other seeds at 32 x 32 pixels, 0 to 1"

    def score(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        small_NHWC = _small(images_NHWC)
        tasks = [name.rpartition("_")[0] for name in batch.ids]
        scores_N = torch.full((len(batch),), torch.nan)
        for n, task in enumerate(tasks):
            others = [k for k, other in enumerate(tasks) if other == task and k != n]
            if others:
                scores_N[n] = (small_NHWC[others] - small_NHWC[n]).abs().mean()
        return scores_N


class FromBase(Measure):
    """Mean absolute difference to the base's picture of the same task and seed, both at 32 x 32 pixels. [0, 1]."""

    axis: Axis = "picture"
    unit = "mean absolute difference to the base's picture of the same seed at 32 x 32 pixels, 0 to 1"

    def __init__(self, folder: Path):
        self._folder = folder  # of the base's pictures; where they lie is no setting of the measure

    def score(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        base_NHWC = to_tensor([open_picture(self._folder / name) for name in batch.ids])
        return (_small(images_NHWC) - _small(base_NHWC)).abs().mean((1, 2, 3))


def series_measures(out: Path) -> Mapping[str, Measure]:
    """Measures that a series adds to copy_paste, by name."""
    return {"diversity": Diversity(), "from_base": FromBase(out / "pictures" / BASE)}
