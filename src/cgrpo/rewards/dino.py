"""DINO-Seg, the paper's identity reward: DINOv2 similarity of the segmented subjects."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    BitImageProcessorPil,
    Dinov2Model,
    Dinov2WithRegistersModel,
    DINOv3ViTModel,
    ViTImageProcessorPil,
)

from cgrpo.errors import UserError
from cgrpo.rewards.base import Axis, EncodeOnce, Reward, digest, to_pictures
from cgrpo.rewards.loading import choose, load_pretrained
from cgrpo.rewards.segment import Segmenter, subject_crop
from cgrpo.types import Batch

Masks = Literal["both", "reference", "none"]

BACKBONES = {  # model type -> model, and how its pictures are prepared
    "dinov2": (Dinov2Model, BitImageProcessorPil),
    "dinov2_with_registers": (Dinov2WithRegistersModel, BitImageProcessorPil),
    "dinov3_vit": (DINOv3ViTModel, ViTImageProcessorPil),
}


class Subject(NamedTuple):
    """A picture, the phrase for what counts in it, and its mask where the data set has one."""

    picture: Image.Image
    phrase: str
    mask: Image.Image | None = None


class DinoSeg(Reward):
    """Cosine of the DINO CLS tokens of the subject in the reference and in the generated picture. Range [-1, 1].

    Model: DINOv2 (the paper: large; the release: base), with registers too, or a DINOv3 ViT: the CLS token after the
    final norm, fp32. Preprocessing, as the folder says: DINOv2 short side 256 bicubic, centre crop 224; DINOv3 squash
    to 224 bilinear; ImageNet statistics; PIL only. With several references the mean cosine counts; with none NaN.

    ``masks``: "both" pictures are segmented (the paper's text), the "reference" only (the release), or "none" (plain
    DINO, as in the paper's pilot). A segmented picture is composited on a neutral colour and cropped to the subject.
    A mask that the data set gives for a reference comes before the segmenter. A picture in which nothing is found is
    scored whole, and counted in ``report``. The last ``remembered`` references are encoded once.
    """

    axis: Axis = "identity"
    unit = "cosine of DINO CLS tokens, -1 to 1"

    def __init__(
        self,
        folder: Path,
        segmenter: Segmenter | None,
        *,
        masks: Masks = "both",
        device: torch.device | str = "cpu",
        chunk: int = 64,
        remembered: int = 4096,
    ):
        if masks == "both" and segmenter is None:
            raise UserError("masks = 'both' needs a segmenter for generated pictures; give one, or set masks = 'none'")
        model, processor = choose(folder, BACKBONES, "DINO checkpoint")
        self.processor = load_pretrained(processor, folder)
        self.model = load_pretrained(model, folder)
        self.segmenter, self.masks, self.chunk = segmenter, masks, chunk
        self._references = EncodeOnce(self._encode_reference, remembered)
        self._seen: dict[str, list[bool]] = {}
        self.to(device)

    def to(self, device: torch.device | str) -> None:
        self.device = device
        self.model.to(device)
        if self.segmenter is not None:
            self.segmenter.to(device)

    def report(self) -> dict[str, float]:
        """Shares of generated pictures and of references that were to be masked but scored whole."""
        shares = {key: float(np.mean(whole)) for key, whole in self._seen.items()}
        self._seen = {}
        return shares

    @torch.no_grad()
    def features(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Unit-length CLS tokens [N, C] of whole pictures."""
        rows = []
        for first in range(0, len(pictures), self.chunk):
            part = [picture.convert("RGB") for picture in pictures[first : first + self.chunk]]
            pixels = self.processor(images=part, return_tensors="pt")["pixel_values"]
            rows.append(F.normalize(self.model(pixels.to(self.device)).last_hidden_state[:, 0], dim=-1).cpu())
        return torch.cat(rows)

    def crops(self, subjects: Sequence[Subject]) -> tuple[list[Image.Image], list[bool]]:
        """Each subject cut out of its picture, and whether the picture had to be left whole."""
        pictures = [subject.picture.convert("RGB") for subject in subjects]
        masks: list[np.ndarray | None] = [_as_array(subject) for subject in subjects]
        ask = [row for row, subject in enumerate(subjects) if subject.mask is None]
        if self.segmenter is not None and ask:
            found = self.segmenter.segment([pictures[row] for row in ask], [subjects[row].phrase for row in ask])
            for row, mask in zip(ask, found, strict=True):
                masks[row] = mask
        whole = [mask is None or not mask.any() for mask in masks]
        return [subject_crop(picture, mask) for picture, mask in zip(pictures, masks, strict=True)], whole

    def _encode_reference(self, subject: Subject) -> tuple[Tensor, bool]:
        """Its feature [C], and whether it had to be left whole."""
        pictures, whole = ([subject.picture], [False]) if self.masks == "none" else self.crops([subject])
        return self.features(pictures)[0], whole[0]

    def reference_features(self, batch: Batch) -> list[Tensor]:
        """For each row the features [references, C]; each distinct picture is encoded once."""
        given = batch.reference_masks or [[None] * len(pictures) for pictures in batch.references]
        rows = [
            [Subject(picture, phrase, mask) for picture, mask in zip(pictures, masks, strict=True)]
            for pictures, phrase, masks in zip(batch.references, batch.subjects, given, strict=True)
        ]
        keys = [[_key(subject) for subject in row] for row in rows]
        items: dict[Hashable, Subject] = {
            key: s for row, ks in zip(rows, keys, strict=True) for s, key in zip(row, ks, strict=True)
        }
        known = self._references(items)
        if self.masks != "none":
            self._count("reference_unsegmented", [known[key][1] for row in keys for key in row])
        empty = torch.empty(0, self.model.config.hidden_size)
        return [torch.stack([known[key][0] for key in row]) if row else empty for row in keys]

    def _count(self, key: str, whole: list[bool]) -> None:
        if whole:
            self._seen.setdefault(key, []).extend(whole)

    def __call__(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        pictures = to_pictures(images_NHWC)
        if self.masks == "both":
            pictures, whole = self.crops([Subject(p, words) for p, words in zip(pictures, batch.subjects, strict=True)])
            self._count("unsegmented", whole)
        pairs = zip(self.features(pictures), self.reference_features(batch), strict=True)
        return torch.stack([(references @ row).mean() for row, references in pairs])  # the mean of none is NaN


def _as_array(subject: Subject) -> np.ndarray | None:
    """The given mask as booleans [H, W]."""
    if subject.mask is None:
        return None
    if subject.mask.size != subject.picture.size:
        raise UserError(
            f"the mask of a reference of {subject.phrase!r} is {subject.mask.size} pixels (width, height), its picture "
            f"{subject.picture.size}; make them the same"
        )
    return np.asarray(subject.mask.convert("L")) > 127


def _key(subject: Subject) -> tuple[str, ...]:
    return (subject.phrase, digest(subject.picture), "" if subject.mask is None else digest(subject.mask))
