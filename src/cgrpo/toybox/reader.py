"""The network that reads a picture of the toy world, for its judges.

One ResNet reads every factor of a picture (scene, position, size, the subject's shape, pattern and
colours) by classification and regression on the whole picture: another architecture, another
objective and no segmenter, so no twin of either reward.
"""

from pathlib import Path

import torch
from torch import Tensor

from cgrpo.rewards.base import to_pictures
from cgrpo.rewards.loading import load_pretrained
from cgrpo.toybox import world

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


def probability(logits_NC: Tensor, wanted_N: Tensor) -> Tensor:
    """Of the wanted class of each row, by a softmax."""
    return logits_NC.softmax(-1).gather(1, wanted_N[:, None])[:, 0]
