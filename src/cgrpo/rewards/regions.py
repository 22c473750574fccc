"""Regions of a picture: the instances that phrases name, how far they overlap, and one cut out of its picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

SAME = 0.5  # two masks are one instance where their intersection is more than this share of their union
NEUTRAL = (124, 116, 104)  # the ImageNet mean, which DINO's normalisation maps to 0


@dataclass(frozen=True)
class Region:
    """An instance in a picture: its mask [H, W], and the phrases that it was found under."""

    mask_HW: np.ndarray
    phrases: set[str]


Instances = Callable[[list[Image.Image], list[str]], list[list[np.ndarray]]]


def regions_of(
    instances: Instances, pictures: Sequence[Image.Image], phrases: Sequence[Sequence[str]]
) -> list[list[Region]]:
    """Every instance of each picture's phrases, as a segmenter's ``instances`` finds them.

    What is found under two phrases is one region.
    """
    asked = [(n, phrase) for n, row in enumerate(phrases) for phrase in dict.fromkeys(row)]
    found = instances([pictures[n] for n, _ in asked], [phrase for _, phrase in asked])
    regions: list[list[Region]] = [[] for _ in pictures]
    for (n, phrase), masks in zip(asked, found, strict=True):
        for mask in masks:
            same = next((one for one in regions[n] if overlap(one.mask_HW, mask) > SAME), None)
            if same:
                same.phrases.add(phrase)
            else:
                regions[n].append(Region(mask, {phrase}))
    return regions


def overlap(one_HW: np.ndarray, other_HW: np.ndarray) -> float:
    """Intersection over union of two masks, 0 to 1."""
    return float((one_HW & other_HW).sum() / max((one_HW | other_HW).sum(), 1))


def subject_crop(picture: Image.Image, mask: np.ndarray | None, margin: float = 8 / 7) -> Image.Image:
    """The subject alone: composited on a neutral colour, cropped to the square around its mask.

    ``margin`` >= 256/224 = 8/7 keeps the subject whole through DINO's resize-256-crop-224.
    Without a mask, or with an empty one, the whole picture is returned.
    """
    if mask is None or not mask.any():
        return picture
    alone = Image.composite(picture, Image.new("RGB", picture.size, NEUTRAL), Image.fromarray(mask))
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    half = max(bottom - top, right - left) * margin / 2
    centre_x, centre_y = (left + right) / 2, (top + bottom) / 2
    side = max(1, round(2 * half))
    corner = (round(centre_x - half), round(centre_y - half))
    square = Image.new("RGB", (side, side), NEUTRAL)
    square.paste(alone, (-corner[0], -corner[1]))
    return square
