"""Judges of the pair world, never trained on: the world draws each subject and looks for it in the picture.

Each subject is drawn as its reference has it, in a few sizes, and laid over every place of the picture; the likeness of
the best place counts. No network, no segmenter: no twin of either reward. The two subjects must lie apart, so that one
copy never counts for both. Only the scene is read by the toy world's reader.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from cgrpo.rewards.base import Axis, Reward
from cgrpo.toybox import drawing
from cgrpo.toybox.pair import RADIUS, PairCase
from cgrpo.toybox.reader import COLOUR_SCALE, Reader, probability
from cgrpo.toybox.world import Subjects
from cgrpo.types import Batch

SIZES = (0.94, 1.0, 1.06)  # of the radius
SHIFTS = (0.0, 0.5)  # of the centre in pixels, each way
KERNEL, PAD = 16, 4  # pixels
APART = 8.0  # pixels between the subjects' centres
SHARPNESS = 0.05  # of the softmax over relations, in likeness
RIGHT = 0.5  # a subject is right where its likeness lies above this, a relation where its probability does

_axis = torch.arange(drawing.SIZE + 2 * PAD - KERNEL + 1).float()
_y, _x = torch.meshgrid(_axis, _axis, indexing="ij")
_PLACES_L2 = torch.stack([_x, _y], -1).flatten(0, 1)


@dataclass(frozen=True)
class PairReading:
    """What is read of N pictures.

    likeness_N2  of both subjects, in the references' order, in [0, 1]
    relation_N4  probability of each of RELATIONS between the first and the second subject that the prompt names
    """

    likeness_N2: Tensor
    relation_N4: Tensor


def look_for(images_NHWC: Tensor, cases: list[PairCase]) -> PairReading:
    """Both subjects of each case in its picture (uint8 [N, 32, 32, 3])."""
    pictures = images_NHWC.permute(0, 3, 1, 2).float().cpu() / 255
    maps_NL = [likeness_map(pictures, Subjects.join([case.subjects[number] for case in cases])) for number in range(2)]
    gap_LL2 = _PLACES_L2[None] - _PLACES_L2[:, None]  # from the first named to the second
    across, down = gap_LL2.unbind(-1)
    apart = gap_LL2.square().sum(-1) >= APART**2
    sideways = across.abs() > down.abs()
    regions_4LL = torch.stack(  # in the order of RELATIONS
        [sideways & (across > 0), sideways & (across < 0), ~sideways & (down > 0), ~sideways & (down < 0)]
    )
    likeness, relations = [], []
    for n, case in enumerate(cases):
        one_L, two_L = (maps_NL[number][n] for number in case.named)
        sum_LL = (one_L[:, None] + two_L[None]).masked_fill(~apart, 0.0)
        best_4 = sum_LL.masked_fill(~regions_4LL, 0.0).flatten(1).amax(1)
        place = int(sum_LL.argmax())
        own = one_L[place // len(two_L)], two_L[place % len(two_L)]
        likeness.append(torch.stack([own[case.named.index(0)], own[case.named.index(1)]]))
        relations.append((best_4 / SHARPNESS).softmax(0))
    return PairReading(torch.stack(likeness), torch.stack(relations))


def likeness_map(pictures_NCHW: Tensor, subjects: Subjects) -> Tensor:
    """How much each place of a picture looks like its subject: [N, places] in [0, 1].

    exp(-d / 2 s^2), d the mean over the subject's pixels of the squared RGB distance, s = COLOUR_SCALE.
    """
    count, edge = len(pictures_NCHW), (drawing.SIZE - KERNEL) // 2
    padded = F.pad(_blurred(pictures_NCHW), [PAD] * 4, mode="replicate")
    best = torch.zeros(count, len(_PLACES_L2))
    blank = torch.zeros(count, 3, drawing.SIZE * drawing.SUPER, drawing.SIZE * drawing.SUPER)
    for size in SIZES:
        for shift in [(x, y) for x in SHIFTS for y in SHIFTS]:
            centre_B2, radius_B = torch.tensor([shift]).expand(count, -1), torch.full((count,), RADIUS * size)
            drawn, inside = drawing.over(blank, subjects, centre_B2, radius_B, whole=True)
            cut = slice(edge, edge + KERNEL)
            share = _blurred(drawing.averaged(inside[:, None]))[:, :, cut, cut]
            colour = _blurred(drawing.averaged(drawn))[:, :, cut, cut]
            wide = (F.max_pool2d(share, 5, stride=1, padding=2) > 0.5) & (share < 0.15)
            # Edges are mixed with the scene, so they count less.
            alike = _alike(padded, colour, share**2)
            beyond = _alike(padded, colour, wide.float())
            best = torch.maximum(best, alike * (1 - beyond))
    return best


def _alike(pictures_NCHW: Tensor, colour: Tensor, weight: Tensor) -> Tensor:
    """Likeness of every place with its picture's template [N, places]; both [N, 3 or 1, KERNEL, KERNEL]."""
    count = len(pictures_NCHW)
    squares = F.conv2d(pictures_NCHW.square().flatten(0, 1)[None], weight.expand(-1, 3, -1, -1), groups=count)
    products = F.conv2d(pictures_NCHW.flatten(0, 1)[None], colour * weight, groups=count)
    error = (squares - 2 * products)[0] + (colour.square() * weight).sum((1, 2, 3))[:, None, None]
    error = error.flatten(1).clamp(min=0) / weight.sum((1, 2, 3))[:, None]
    return torch.exp(-0.5 * error / COLOUR_SCALE**2)


def _blurred(pictures_NCHW: Tensor) -> Tensor:
    """Averaged over 3 x 3 pixels: an autoencoder's pictures are blurred, and fine patterns must not need to fit."""
    return F.avg_pool2d(F.pad(pictures_NCHW, [1] * 4, mode="replicate"), 3, stride=1)


class Finder:
    """``look_for`` for several judges of the same pictures: the last two batches' answers are kept."""

    def __init__(self) -> None:
        self._last: list[tuple[Tensor, Batch, PairReading]] = []

    def __call__(self, images_NHWC: Tensor, batch: Batch) -> PairReading:
        for images, tasks, reading in self._last:
            if images is images_NHWC and tasks is batch:
                return reading
        reading = look_for(images_NHWC, list(batch.spec or ()))
        self._last = [*self._last[-1:], (images_NHWC, batch, reading)]
        return reading


class SubjectsReadBack(Reward):
    """Likeness of the subjects, each found in a place of its own: of one of them, or their mean. Range [0, 1]."""

    axis: Axis = "identity"

    def __init__(self, finder: Finder, subject: int | None = None):
        self.finder, self.subject = finder, subject
        of = "both subjects, their mean," if subject is None else f"the subject of reference {subject}"
        self.unit = f"likeness of {of} where it is greatest, 0 to 1"

    def score(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        likeness_N2 = self.finder(images_NHWC, batch).likeness_N2
        return likeness_N2.mean(1) if self.subject is None else likeness_N2[:, self.subject - 1]


class RelationReadBack(Reward):
    """Mean probability of the relation and of the scene that the prompt asks for. [0, 1]."""

    axis: Axis = "prompt"
    unit = "mean read-back of relation and scene, 0 to 1"

    def __init__(self, finder: Finder, reader: Reader):
        self.finder, self.reader = finder, reader

    def score(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        scene_N = torch.cat([case.prompt.scene_B for case in batch.spec or ()])
        scene = probability(self.reader.read(images_NHWC)["scene"], scene_N)
        return (_related(self.finder(images_NHWC, batch), batch) + scene) / 2


class BothRight(Reward):
    """1 where both subjects are right and related as asked, else 0: its mean is the share of such pictures."""

    axis: Axis = "identity"
    unit = "share of pictures in which both subjects are right and related as asked, 0 to 1"

    def __init__(self, finder: Finder):
        self.finder = finder

    def score(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        reading = self.finder(images_NHWC, batch)
        return ((reading.likeness_N2 > RIGHT).all(1) & (_related(reading, batch) > RIGHT)).float()


def _related(reading: PairReading, batch: Batch) -> Tensor:
    """Probability of the relation that each prompt asks for [N]."""
    asked_N = torch.cat([case.prompt.relation_B for case in batch.spec or ()])
    return reading.relation_N4.gather(1, asked_N[:, None])[:, 0]


def pair_judges(reader: Reader) -> dict[str, Reward]:
    """The pair world's judges by name. Of those of identity, ``identity_readback`` stands for the axis in tables."""
    finder = Finder()
    return {
        "subject_1_readback": SubjectsReadBack(finder, 1),
        "subject_2_readback": SubjectsReadBack(finder, 2),
        "both_right": BothRight(finder),
        "identity_readback": SubjectsReadBack(finder),
        "prompt_readback": RelationReadBack(finder, reader),
    }
