"""Judges of the toy world, never trained on: what is read back from a picture against what was asked.

One ResNet reads every factor of a picture (scene, position, size, the subject's shape, pattern and
colours) by classification and regression on the whole picture: another architecture, another
objective and no segmenter, so no twin of either reward.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cgrpo.hub import asset
from cgrpo.rewards.base import Axis, Reward, to_pictures
from cgrpo.rewards.loading import load_pretrained
from cgrpo.toybox import world
from cgrpo.types import Batch

SLICES = {  # the reader's outputs, in order
    "scene": len(world.SCENES),
    "position": len(world.POSITIONS),
    "size": len(world.SIZES),
    "property": len(world.PROPERTIES),
    "shape": len(world.SHAPES),
    "pattern": len(world.PATTERNS),
    "one": 3,  # the subject's two colours in no order: which is the main one can't always be seen
    "two": 3,
}
COLOUR_SCALE = 0.25  # RGB distance at which two colours' likeness has fallen to exp(-1/2)


@dataclass(frozen=True)
class Case:
    """What a judge knows of one task: one subject (as in its reference) and one prompt, structs of length 1."""

    subject: world.Subjects
    prompt: world.Prompts


class Reader:
    """The read-back network; ``read`` returns named logits [N, classes] and colours [N, 3] in [0, 1]."""

    def __init__(self, folder: Path, chunk: int = 64):
        self.processor = load_pretrained("ConvNextImageProcessorPil", folder)
        self.model = load_pretrained("ResNetForImageClassification", folder)
        self.chunk = chunk

    @torch.no_grad()
    def read(self, images_NHWC: Tensor) -> dict[str, Tensor]:
        pictures = to_pictures(images_NHWC)
        rows = []
        for first in range(0, len(pictures), self.chunk):
            pixels = self.processor(images=pictures[first : first + self.chunk], return_tensors="pt")["pixel_values"]
            rows.append(self.model(pixels).logits)
        return dict(zip(SLICES, torch.cat(rows).split(list(SLICES.values()), 1), strict=True))


def colour_likeness(a_NC: Tensor, b_NC: Tensor) -> Tensor:
    """1 for equal RGB colours, falling with their distance; in (0, 1]."""
    return torch.exp(-0.5 * ((a_NC - b_NC) / COLOUR_SCALE).square().sum(-1))


def _probability(logits_NC: Tensor, wanted_N: Tensor) -> Tensor:
    return logits_NC.softmax(-1).gather(1, wanted_N[:, None])[:, 0]


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
        shape = _probability(readings["shape"], subjects.shape_B)
        pattern = _probability(readings["pattern"], subjects.pattern_B)
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
        total = sum(_probability(readings[factor], index) for factor, index in wanted.items())
        has_property = (prompts.property_B > 0).float()
        return (total + has_property * _probability(readings["property"], prompts.property_B)) / (3 + has_property)


def make_judges() -> dict[str, Reward]:
    """The toy world's judges by name, never trained on."""
    reader = Reader(asset("reader"))
    return {"identity_readback": IdentityReadBack(reader), "prompt_readback": PromptReadBack(reader)}
