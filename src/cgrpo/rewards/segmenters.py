"""Finding the subject in a picture, and cutting it out. No torchvision needed.

GroundedSam (GroundingDINO's box and SAM's mask in it) and Sam3Segmenter take any phrase, SemanticSegmenter (Segformer)
the class names of its checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F
from transformers import ViTImageProcessorPil

from cgrpo.errors import UserError
from cgrpo.rewards.loading import choose, load_pretrained, model_type
from cgrpo.rewards.regions import SAME, overlap

MOST = 8  # instances of a phrase in a picture
DETECTORS = {
    "grounding-dino": "GroundingDinoForObjectDetection",
    "mm-grounding-dino": "MMGroundingDinoForObjectDetection",
}


def load_segmenter(folder: Path, detector: Path | None = None, device: torch.device | str = "cpu") -> Segmenter:
    """The segmenter in ``folder``, as its config.json says: SAM (with a ``detector``), SAM 3, or a Segformer."""
    stored = model_type(folder)
    if stored == "sam":
        if detector is None:
            raise UserError(f"segmenter {folder} is SAM, which needs a box", "name a GroundingDINO folder as detector")
        return GroundedSam(detector, folder, device=device)
    if detector is not None:
        cure = "leave the detector empty, or give a SAM folder"
        raise UserError(f"segmenter {folder} ({stored}) takes no detector", cure)
    classes = {"segformer": SemanticSegmenter, "sam3": Sam3Segmenter, "sam3_video": Sam3Segmenter}
    return choose(folder, classes, "segmenter")(folder, device=device)


class Segmenter(Protocol):
    """Finds what a phrase names. Inherit from this class to get a ``to`` that does nothing."""

    def segment(self, pictures: list[Image.Image], phrases: list[str]) -> list[np.ndarray | None]:
        """A boolean mask [H, W] of what each phrase names, or None where nothing is found."""
        ...

    def instances(self, pictures: list[Image.Image], phrases: list[str]) -> list[list[np.ndarray]]:
        """A boolean mask [H, W] of each thing that a phrase names, the surest first. By default ``segment``'s."""
        return [[] if mask is None else [mask] for mask in self.segment(pictures, phrases)]

    def to(self, device: torch.device | str) -> None:
        """Move the models there."""


class _OneModel(Segmenter):
    """A segmenter of one model, which segments ``chunk`` pictures at a time."""

    def __init__(self, name: str, folder: Path, device: torch.device | str, chunk: int):
        self.model, self.chunk = load_pretrained(name, folder), chunk
        self.to(device)

    def to(self, device: torch.device | str) -> None:
        self.device = device
        self.model.to(device)

    def segment(self, pictures: list[Image.Image], phrases: list[str]) -> list[np.ndarray | None]:
        masks: list[np.ndarray | None] = []
        with torch.no_grad():
            for first in range(0, len(pictures), self.chunk):
                rows = slice(first, first + self.chunk)
                masks += self._segment(pictures[rows], phrases[rows])
        return masks

    def _segment(self, pictures: list[Image.Image], phrases: list[str]) -> list[np.ndarray | None]:
        """``segment``, for pictures that share a forward."""
        raise NotImplementedError


class SemanticSegmenter(_OneModel):
    """Any Segformer checkpoint with a closed vocabulary: a phrase is looked up among its class names.

    A class covering less than ``min_share`` of the picture counts as not found.
    """

    def __init__(self, folder: Path, *, device: torch.device | str = "cpu", min_share: float = 0.01, chunk: int = 64):
        self.processor = load_pretrained("SegformerImageProcessorPil", folder)
        self.min_share = min_share
        super().__init__("SegformerForSemanticSegmentation", folder, device, chunk)

    def _segment(self, pictures: list[Image.Image], phrases: list[str]) -> list[np.ndarray | None]:
        vocabulary = self.model.config.label2id or {}
        unknown = sorted(set(phrases) - set(vocabulary))
        if unknown:
            raise UserError(f"segmenter: no class named {unknown[0]!r}; it knows {', '.join(sorted(vocabulary))}")
        pixels = self.processor(images=pictures, return_tensors="pt")["pixel_values"]
        logits = self.model(pixels.to(self.device)).logits
        masks: list[np.ndarray | None] = []
        for row, picture, phrase in zip(logits, pictures, phrases, strict=True):
            full = F.interpolate(row[None], size=picture.size[::-1], mode="bilinear", align_corners=False)[0]
            mask = (full.argmax(0) == vocabulary[phrase]).cpu().numpy()
            masks.append(mask if mask.mean() >= self.min_share else None)
        return masks

    def instances(self, pictures: list[Image.Image], phrases: list[str]) -> list[list[np.ndarray]]:
        """A class's parts, the largest first; two things that touch are cut apart at a narrow bridge."""
        return [[] if mask is None else self._parts(mask) for mask in self.segment(pictures, phrases)]

    def _parts(self, mask_HW: np.ndarray) -> list[np.ndarray]:
        """What hangs together without bridges of up to a 16th of the picture's side; each pixel to the nearest."""
        eroded_HW = ndimage.binary_erosion(mask_HW, iterations=max(1, min(mask_HW.shape) // 32))
        cores_HW, count = cast("tuple[np.ndarray, int]", ndimage.label(eroded_HW))
        away = [np.asarray(ndimage.distance_transform_edt(cores_HW != number + 1)) for number in range(count)]
        nearest_HW = np.argmin(away, 0) if away else np.zeros(mask_HW.shape)
        parts = [mask_HW & (nearest_HW == number) for number in range(max(count, 1))]
        return sorted((part for part in parts if part.mean() >= self.min_share), key=lambda part: -part.sum())


class GroundedSam(Segmenter):
    """GroundingDINO finds the box of a phrase, SAM the mask inside it.

    Detector (grounding-dino-tiny/base or an MM variant): the folder's processor (short side 800, long side <= 1333,
    ImageNet statistics), the phrase in lower case and ending in "."; the one box with the best score (sigmoid, the
    best token) counts, if that is above ``threshold``. SAM (sam-vit-base/large/huge): long side 1024, padded, the box
    as the prompt, one mask, logits above 0. fp32, ``chunk`` pictures at a time.
    """

    def __init__(
        self, detector: Path, sam: Path, *, threshold: float = 0.25, device: torch.device | str = "cpu", chunk: int = 4
    ):
        self.detector = load_pretrained(choose(detector, DETECTORS, "detector"), detector)
        self.detector_pixels = load_pretrained("GroundingDinoImageProcessorPil", detector)
        self.tokenizer = load_pretrained("AutoTokenizer", detector)
        self.sam = load_pretrained(choose(sam, {"sam": "SamModel"}, "segmenter"), sam)
        self.sam_pixels = load_pretrained("SamImageProcessorPil", sam)
        self.threshold, self.chunk = threshold, chunk
        self.to(device)

    def to(self, device: torch.device | str) -> None:
        self.device = device
        self.detector.to(device)
        self.sam.to(device)

    @torch.no_grad()
    def segment(self, pictures: list[Image.Image], phrases: list[str]) -> list[np.ndarray | None]:
        prompts = [_prompt(phrase) for phrase in phrases]
        masks: list[np.ndarray | None] = [None] * len(pictures)
        for rows in _equal_sizes(pictures, self.chunk):
            boxes = self.boxes([pictures[row] for row in rows], [prompts[row] for row in rows])
            boxed = [(row, box) for row, box in zip(rows, boxes, strict=True) if box is not None]
            if boxed:
                boxes_N14 = torch.stack([box for _, box in boxed])[:, None]
                box_masks = self._masks([pictures[row] for row, _ in boxed], boxes_N14)
                for (row, _), (mask,) in zip(boxed, box_masks, strict=True):
                    masks[row] = mask if mask.any() else None
        return masks

    @torch.no_grad()
    def boxes(self, pictures: list[Image.Image], prompts: list[str]) -> list[Tensor | None]:
        """The best box (left, top, right, bottom; pixels) in each of some pictures of one size, or None."""
        scores_NQ, corners_NQ4 = self._detected(pictures, prompts)
        best_N, query_N = scores_NQ.max(-1)
        corners_N4 = corners_NQ4[torch.arange(len(pictures)), query_N]
        return [box if score > self.threshold else None for box, score in zip(corners_N4, best_N, strict=True)]

    @torch.no_grad()
    def instances(self, pictures: list[Image.Image], phrases: list[str]) -> list[list[np.ndarray]]:
        """The masks in at most MOST boxes above the threshold that are no box of a better one's thing."""
        found: list[list[np.ndarray]] = []
        for picture, phrase in zip(pictures, phrases, strict=True):
            (score_Q,), (corners_Q4,) = self._detected([picture], [_prompt(phrase)])
            order = [q for q in score_Q.argsort(descending=True).tolist() if score_Q[q] > self.threshold]
            kept: list[int] = []
            for q in order:
                if len(kept) < MOST and all(_box_overlap(corners_Q4[q], corners_Q4[k]) <= SAME for k in kept):
                    kept.append(q)
            masks = self._masks([picture], corners_Q4[kept][None])[0] if kept else []
            found.append([mask for mask in masks if mask.any()])
        return found

    def _detected(self, pictures: list[Image.Image], prompts: list[str]) -> tuple[Tensor, Tensor]:
        """Every query's score [N, Q] and box [N, Q, 4] (left, top, right, bottom; pixels), pictures of one size."""
        pixels = self.detector_pixels(images=pictures, return_tensors="pt").to(self.device)
        text = self.tokenizer(
            prompts,
            padding=True,
            truncation=True,
            max_length=self.detector.config.max_text_len,
            return_token_type_ids=True,
            return_tensors="pt",
        ).to(self.device)
        out = self.detector(**pixels, **text)
        middle, half = out.pred_boxes.cpu()[..., :2], out.pred_boxes.cpu()[..., 2:] / 2
        width, height = pictures[0].size
        corners_NQ4 = torch.cat([middle - half, middle + half], -1).clamp(0, 1)
        return out.logits.cpu().sigmoid().amax(-1), corners_NQ4 * torch.tensor([width, height, width, height])

    def _masks(self, pictures: list[Image.Image], boxes_NB4: Tensor) -> list[np.ndarray]:
        """The masks [B, H, W] in the B boxes of each picture."""
        inputs = self.sam_pixels(images=pictures, return_tensors="pt")
        before, after = inputs["original_sizes"], inputs["reshaped_input_sizes"]  # (height, width) of each picture
        scale_N14 = (after / before).flip(-1).repeat(1, 2)[:, None]
        out = self.sam(
            pixel_values=inputs["pixel_values"].to(self.device),
            input_boxes=(boxes_NB4 * scale_N14).to(self.device),
            multimask_output=False,
        )
        masks = self.sam_pixels.post_process_masks(out.pred_masks.cpu(), before, after)
        return [mask[:, 0].numpy() for mask in masks]


class Sam3Segmenter(_OneModel):
    """SAM 3: the mask of the best-scoring instance of a phrase, one model.

    Pictures squashed to the configuration's square (1008) by PIL's bilinear filter, normalised by mean and deviation
    0.5 (transformers has no processor for it without torchvision; PIL differs by at most 2 grey levels). Score =
    sigmoid(instance) * sigmoid(presence), above ``threshold``; the mask is where its probability exceeds 0.5.
    """

    def __init__(self, folder: Path, *, threshold: float = 0.3, device: torch.device | str = "cpu", chunk: int = 4):
        super().__init__("Sam3Model", folder, device, chunk)
        self.tokenizer = load_pretrained("AutoTokenizer", folder)
        side = self.model.config.image_size
        self.processor = ViTImageProcessorPil(
            size={"height": side, "width": side}, resample=2, image_mean=[0.5] * 3, image_std=[0.5] * 3
        )
        self.threshold = threshold

    def _segment(self, pictures: list[Image.Image], phrases: list[str]) -> list[np.ndarray | None]:
        return [masks[0] if masks else None for masks in self._found(pictures, phrases, 1)]

    def instances(self, pictures: list[Image.Image], phrases: list[str]) -> list[list[np.ndarray]]:
        """Those of at most MOST instances above the threshold whose mask is no better one's."""
        found = []
        with torch.no_grad():
            for first in range(0, len(pictures), self.chunk):
                rows = slice(first, first + self.chunk)
                for masks in self._found(pictures[rows], phrases[rows], MOST):
                    kept: list[np.ndarray] = []
                    for mask in masks:
                        if all(overlap(mask, other) <= SAME for other in kept):
                            kept.append(mask)
                    found.append(kept)
        return found

    def _found(self, pictures: list[Image.Image], phrases: list[str], most: int) -> list[list[np.ndarray]]:
        """The masks of each picture's ``most`` best instances, as far as they lie above the threshold."""
        phrases = [_named(phrase) for phrase in phrases]
        pixels = self.processor(images=pictures, return_tensors="pt")["pixel_values"]
        length = self.model.config.text_config.max_position_embeddings
        text = self.tokenizer(phrases, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        out = self.model(
            pixel_values=pixels.to(self.device),
            input_ids=text["input_ids"].to(self.device),
            attention_mask=text["attention_mask"].to(self.device),
        )
        scores_NQ = out.pred_logits.sigmoid() * out.presence_logits.sigmoid()
        found = []
        for row, picture in enumerate(pictures):
            score_Q, query_Q = scores_NQ[row].topk(min(most, scores_NQ.shape[1]))
            masks = []
            for query in query_Q[score_Q > self.threshold].tolist():
                chances = out.pred_masks[row, query].sigmoid()[None, None]
                full = F.interpolate(chances, size=picture.size[::-1], mode="bilinear", align_corners=False)[0, 0]
                masks.append((full > 0.5).cpu().numpy())
            found.append([mask for mask in masks if mask.any()])
        return found


def _named(phrase: str) -> str:
    if not phrase.strip(" ."):
        raise UserError("segmenter: a task has no subject to look for; give each record a 'subject', or masks = 'none'")
    return phrase.strip()


def _prompt(phrase: str) -> str:
    """As GroundingDINO was trained to read one."""
    return f"{_named(phrase).lower().rstrip('. ')}."


def _box_overlap(one_4: Tensor, other_4: Tensor) -> float:
    """Intersection over union of two boxes, 0 to 1."""
    shared = (torch.minimum(one_4[2:], other_4[2:]) - torch.maximum(one_4[:2], other_4[:2])).clamp(min=0).prod()
    both = (one_4[2:] - one_4[:2]).prod() + (other_4[2:] - other_4[:2]).prod() - shared
    return float(shared / both.clamp(min=1e-6))


def _equal_sizes(pictures: list[Image.Image], chunk: int) -> Iterator[list[int]]:
    """Rows of at most ``chunk`` pictures of one size: a batch without padding, so that no row depends on others."""
    sizes: dict[tuple[int, int], list[int]] = {}
    for row, picture in enumerate(pictures):
        sizes.setdefault(picture.size, []).append(row)
    for rows in sizes.values():
        for first in range(0, len(rows), chunk):
            yield rows[first : first + chunk]
