"""The toy worlds' tasks: endless, drawn from a seed, with the ground truth that judges look at."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from cgrpo.data.order import derive
from cgrpo.section import TOYBOX_PAIR
from cgrpo.toybox import drawing, pair, world
from cgrpo.toybox.judges import Case
from cgrpo.types import Batch


def toy_source(name: str, seed: int, split: str = "train", dial: float = 0.35, per_subject: int = 1) -> "ToyboxSource":
    """The tasks of the world that data.source names: "toybox" or "toybox-pair", which has no use for ``dial``."""
    kind = PairWorldSource if name == TOYBOX_PAIR else ToyboxSource
    return kind(seed, split, dial, per_subject)


class ToyboxSource:
    """Task ``index`` is a subject, its reference and a prompt, all drawn from (seed, split, index).

    ``per_subject`` tasks in a row share one subject and reference. Splits have disjoint subjects and
    disjoint (scene, position, size) combinations.
    """

    def __init__(self, seed: int, split: str = "train", dial: float = 0.35, per_subject: int = 1):
        self.size: int | None = None
        self.seed, self.split, self.dial, self.per_subject = seed, split, dial, per_subject

    def cases(self, indices: Sequence[int]) -> list[Any]:
        """The ground truth of the tasks."""
        cases = []
        for index in indices:
            subject = world.sample_subjects(
                1, derive("toybox", self.seed, self.split, "subject", index // self.per_subject)
            )
            rng = derive("toybox", self.seed, self.split, "prompt", index)
            cases.append(Case(subject, world.sample_prompts(1, rng, self.dial, self.split)))
        return cases

    def batch(self, indices: Sequence[int]) -> Batch:
        cases = self.cases(indices)
        references = []
        for case, index in zip(cases, indices, strict=True):
            rng = derive("toybox", self.seed, self.split, "reference", index // self.per_subject)
            references.append((to_picture(drawing.draw_references(case.subject, rng)[0][0]),))
        return Batch(
            ids=tuple(f"{self.split}-{index // self.per_subject}-{index % self.per_subject}" for index in indices),
            prompts=tuple(case.prompt.texts()[0] for case in cases),
            references=tuple(references),
            subjects=(world.PHRASE,) * len(cases),
            spec=tuple(cases),
        )

    def pairs(self, indices: Sequence[int]) -> tuple[Batch, list[Image.Image]]:
        """The tasks with target pictures as flawed as those the base was pretrained on."""
        batch, prompts, targets = self.batch(indices), [], []
        for case, index in zip(self.cases(indices), indices, strict=True):
            rng = derive("toybox", self.seed, self.split, "pair", index)
            shown, caption = world.flawed(case.subject, case.prompt, rng, self.dial)
            prompts.append(caption.texts()[0])
            targets.append(to_picture(drawing.draw(shown, case.prompt, rng)[0][0]))
        return replace(batch, prompts=tuple(prompts)), targets

    def oracle(self, indices: Sequence[int]) -> Tensor:
        """Pictures as the world itself draws them for the tasks: uint8 [N, 32, 32, 3]."""
        rngs = [derive("toybox", self.seed, self.split, "oracle", index) for index in indices]
        drawn = [self.picture(case, rng) for case, rng in zip(self.cases(indices), rngs, strict=True)]
        return torch.stack([(picture * 255).round().to(torch.uint8).permute(1, 2, 0) for picture in drawn])

    def picture(self, case: Any, rng: torch.Generator) -> Tensor:
        """What a task asks for, float [3, 32, 32] in [0, 1]."""
        return drawing.draw(case.subject, case.prompt, rng)[0][0]


class PairWorldSource(ToyboxSource):
    """Tasks of the pair world: two subjects, a reference each in either order, and a prompt that relates them.

    Splits have disjoint subjects and disjoint (scene, relation) combinations.
    """

    def cases(self, indices: Sequence[int]) -> list[pair.PairCase]:
        """The ground truth of the tasks."""
        who = [derive("pair", self.seed, self.split, "subject", index // self.per_subject) for index in indices]
        what = [derive("pair", self.seed, self.split, "prompt", index) for index in indices]
        return [pair.sample_case(*rngs, self.split) for rngs in zip(who, what, strict=True)]

    def batch(self, indices: Sequence[int]) -> Batch:
        cases, references = self.cases(indices), []
        for case, index in zip(cases, indices, strict=True):
            rng = derive("pair", self.seed, self.split, "reference", index // self.per_subject)
            references.append(tuple(to_picture(drawing.draw_references(one, rng)[0][0]) for one in case.subjects))
        return Batch(
            ids=tuple(f"{self.split}-{index // self.per_subject}-{index % self.per_subject}" for index in indices),
            prompts=tuple(case.text() for case in cases),
            references=tuple(references),
            subjects=(world.PHRASE,) * len(cases),
            spec=tuple(cases),
            phrases=tuple(case.phrases() for case in cases),
        )

    def pairs(self, indices: Sequence[int]) -> tuple[Batch, list[Image.Image]]:
        targets = []
        for case, index in zip(self.cases(indices), indices, strict=True):
            rng = derive("pair", self.seed, self.split, "pair", index)
            one, two, prompt, shown_B2 = pair.flawed(*case.in_prompt(), case.prompt, rng)
            targets.append(to_picture(pair.draw(one, two, prompt, rng, shown_B2)[0][0]))
        return self.batch(indices), targets

    def picture(self, case: pair.PairCase, rng: torch.Generator) -> Tensor:
        return pair.draw(*case.in_prompt(), case.prompt, rng)[0][0]


def to_picture(picture: Tensor) -> Image.Image:
    """Float [3, H, W] in [0, 1] -> PIL."""
    return Image.fromarray((picture * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())
