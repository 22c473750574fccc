"""Judges of the toy world, never trained on: what is read back from a picture (reader.py) against what was asked."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cgrpo.hub import asset
from cgrpo.rewards.base import Axis, Reward
from cgrpo.toybox import world
from cgrpo.toybox.pair import PairCase
from cgrpo.toybox.pair_judges import pair_judges
from cgrpo.toybox.reader import Reader, colour_likeness, probability
from cgrpo.types import Batch


@dataclass(frozen=True)
class Case:
    """What a judge knows of one task: one subject (as in its reference) and one prompt, structs of length 1."""

    subject: world.Subjects
    prompt: world.Prompts


def _cases(batch: Batch) -> list[Case]:
    if batch.spec is None:
        raise ValueError("the toybox judges need the world's ground truth; use a toybox data source")
    return list(batch.spec)


class IdentityReadBack(Reward):
    """Probability of the reference's shape and of its pattern, likeness of its two colours. Range [0, 1].

    Colours weigh double: they tell near misses, which shape and pattern, read less surely, would drown.
    """

    axis: Axis = "identity"
    unit = "mean read-back of shape, pattern and (double) two colours, 0 to 1"

    def __init__(self, reader: Reader):
        self.reader = reader

    def score(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        readings = self.reader.read(images_NHWC)
        subjects = world.Subjects.join([case.subject for case in _cases(batch)])
        shape = probability(readings["shape"], subjects.shape_B)
        pattern = probability(readings["pattern"], subjects.pattern_B)
        main, other = subjects.main_BC, subjects.other_BC
        colours = torch.maximum(  # the better way round
            colour_likeness(readings["one"], main) + colour_likeness(readings["two"], other),
            colour_likeness(readings["one"], other) + colour_likeness(readings["two"], main),
        )
        return (shape + pattern + 2 * colours) / 6


class PromptReadBack(Reward):
    """Mean probability of every factor the prompt asks for: scene, position, size and, if any, the property. [0, 1]."""

    axis: Axis = "prompt"
    unit = "mean read-back of the factors asked for, 0 to 1"

    def __init__(self, reader: Reader):
        self.reader = reader

    def score(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        readings = self.reader.read(images_NHWC)
        prompts = world.Prompts.join([case.prompt for case in _cases(batch)])
        wanted = {"scene": prompts.scene_B, "position": prompts.position_B, "size": prompts.size_B}
        total = sum(probability(readings[factor], index) for factor, index in wanted.items())
        has_property = (prompts.property_B > 0).float()
        return (total + has_property * probability(readings["property"], prompts.property_B)) / (3 + has_property)


def make_judges(spec: Sequence[object] | None = None) -> dict[str, Reward]:
    """The judges by name of the world that the ground truth ``spec`` is of (default: the toy world's)."""
    reader = Reader(asset("reader"))
    if spec and isinstance(spec[0], PairCase):
        return pair_judges(reader)
    return {"identity_readback": IdentityReadBack(reader), "prompt_readback": PromptReadBack(reader)}
