"""DINO-Seg, the paper's identity reward: DINOv2 similarity of the segmented subjects."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import BitImageProcessorPil, Dinov2Model

from cgrpo.rewards.base import Axis, to_pictures
from cgrpo.rewards.loading import load_pretrained
from cgrpo.rewards.segment import Segmenter, subject_crop
from cgrpo.types import Batch


class DinoSeg:
    """Cosine of the DINOv2 CLS tokens of the subject in the reference and in the generated picture.

    Both pictures are segmented (the paper's text; the release masks the reference only), composited
    on a neutral colour and cropped to the subject. With several references the mean cosine counts.
    A picture in which nothing is found is scored whole, and counted in ``unsegmented``.
    Features of references are cached by content. Range [-1, 1].
    """

    axis: Axis = "identity"
    unit = "cosine of DINOv2 CLS tokens, -1 to 1"

    def __init__(self, folder: Path, segmenter: Segmenter | None, chunk: int = 64):
        self.processor = load_pretrained(BitImageProcessorPil, folder)
        self.model = load_pretrained(Dinov2Model, folder)
        self.segmenter, self.chunk = segmenter, chunk
        self.unsegmented = 0
        self._references: dict[tuple[str, str], Tensor] = {}

    @torch.no_grad()
    def features(self, pictures: list[Image.Image], phrases: list[str]) -> Tensor:
        """Unit-length CLS tokens [N, C] of the subjects that ``phrases`` name."""
        rows = []
        for first in range(0, len(pictures), self.chunk):
            part, words = pictures[first : first + self.chunk], phrases[first : first + self.chunk]
            if self.segmenter is not None:
                masks = self.segmenter.segment(part, words)
                self.unsegmented += sum(mask is None for mask in masks)
                part = [subject_crop(picture, mask) for picture, mask in zip(part, masks, strict=True)]
            pixels = self.processor(images=part, return_tensors="pt")["pixel_values"]
            rows.append(F.normalize(self.model(pixels).last_hidden_state[:, 0], dim=-1))
        return torch.cat(rows)

    def reference_features(self, batch: Batch) -> list[Tensor]:
        """For each row the features [references, C]; each distinct picture is encoded once."""
        keys = [
            [(hashlib.sha256(picture.tobytes()).hexdigest(), phrase) for picture in pictures]
            for pictures, phrase in zip(batch.references, batch.subjects, strict=True)
        ]
        new = {
            key: picture
            for row, pictures in zip(keys, batch.references, strict=True)
            for key, picture in zip(row, pictures, strict=True)
            if key not in self._references
        }
        if new:
            rows = self.features(list(new.values()), [phrase for _, phrase in new])
            self._references.update(zip(new, rows, strict=True))
        return [torch.stack([self._references[key] for key in row]) for row in keys]

    def __call__(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        made = self.features(to_pictures(images_NHWC), list(batch.subjects))
        pairs = zip(made, self.reference_features(batch), strict=True)
        return torch.stack([(references @ row).mean() for row, references in pairs])
