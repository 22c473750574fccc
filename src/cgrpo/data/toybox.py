"""Tasks from the toy world: endless for training, a fixed grid of held-out subjects and prompts for testing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from PIL import Image

from cgrpo.data.order import derive
from cgrpo.toybox import drawing, world
from cgrpo.toybox.judges import Case
from cgrpo.types import Batch


class ToyboxSource:
    """Task ``index`` is a subject, its reference and a prompt, all drawn from (seed, split, index).

    ``per_subject`` tasks in a row share one subject and reference. Splits have disjoint subjects and
    disjoint (scene, position, size) combinations.
    """

    def __init__(self, seed: int, split: str = "train", dial: float = 0.35, per_subject: int = 1):
        self.size: int | None = None
        self.seed, self.split, self.dial, self.per_subject = seed, split, dial, per_subject

    def cases(self, indices: Sequence[int]) -> list[Case]:
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

    def oracle(self, indices: Sequence[int]) -> torch.Tensor:
        """Pictures as the world itself draws them for the tasks: uint8 [N, 32, 32, 3]."""
        drawn = [
            drawing.draw(case.subject, case.prompt, derive("toybox", self.seed, self.split, "oracle", index))[0][0]
            for case, index in zip(self.cases(indices), indices, strict=True)
        ]
        return torch.stack([(picture * 255).round().to(torch.uint8).permute(1, 2, 0) for picture in drawn])


def to_picture(picture: torch.Tensor) -> Image.Image:
    """Float [3, H, W] in [0, 1] -> PIL."""
    return Image.fromarray((picture * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())
