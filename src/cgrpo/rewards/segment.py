"""Finding the subject: ``segment(pictures, phrases) -> mask | None`` for each picture; and cutting it out."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F
from transformers import SegformerForSemanticSegmentation, SegformerImageProcessorPil

from cgrpo.errors import UserError
from cgrpo.rewards.loading import load_pretrained


class Segmenter(Protocol):
    """Finds what a phrase names. Inherit from this class to get a ``to`` that does nothing."""

    def segment(self, pictures: list[Image.Image], phrases: list[str]) -> list[np.ndarray | None]:
        """A boolean mask [H, W] of what each phrase names, or None where nothing is found."""
        ...

    def to(self, device: torch.device | str) -> None:
        """Move the models there."""


class SemanticSegmenter(Segmenter):
    """Any Segformer checkpoint with a closed vocabulary: a phrase is looked up among its class names.

    A class covering less than ``min_share`` of the picture counts as not found.
    """

    def __init__(self, folder: Path, *, device: torch.device | str = "cpu", min_share: float = 0.01, chunk: int = 64):
        self.processor = load_pretrained(SegformerImageProcessorPil, folder)
        self.model = load_pretrained(SegformerForSemanticSegmentation, folder)
        self.min_share, self.chunk = min_share, chunk
        self.to(device)

    def to(self, device: torch.device | str) -> None:
        self.device = device
        self.model.to(device)

    def segment(self, pictures: list[Image.Image], phrases: list[str]) -> list[np.ndarray | None]:
        vocabulary = self.model.config.label2id or {}
        unknown = sorted(set(phrases) - set(vocabulary))
        if unknown:
            raise UserError(f"segmenter: no class named {unknown[0]!r}; it knows {', '.join(sorted(vocabulary))}")
        masks: list[np.ndarray | None] = []
        for first in range(0, len(pictures), self.chunk):
            rows = slice(first, first + self.chunk)
            masks += self._segment(pictures[rows], [vocabulary[phrase] for phrase in phrases[rows]])
        return masks

    @torch.no_grad()
    def _segment(self, pictures: list[Image.Image], classes: list[int]) -> list[np.ndarray | None]:
        pixels = self.processor(images=pictures, return_tensors="pt")["pixel_values"]
        logits = self.model(pixels.to(self.device)).logits
        masks: list[np.ndarray | None] = []
        for row, picture, wanted in zip(logits, pictures, classes, strict=True):
            full = F.interpolate(row[None], size=picture.size[::-1], mode="bilinear", align_corners=False)[0]
            mask = (full.argmax(0) == wanted).cpu().numpy()
            masks.append(mask if mask.mean() >= self.min_share else None)
        return masks


NEUTRAL = (124, 116, 104)  # the ImageNet mean, which DINO's normalisation maps to 0


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
