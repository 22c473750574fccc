"""DINO-Seg, the paper's identity reward: similarity of segmented subjects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from cgrpo.errors import UserError
from cgrpo.fingerprint import of_picture
from cgrpo.hub import Wanted, locate
from cgrpo.rewards.base import Axis, EncodeOnce, Reward, to_pictures
from cgrpo.rewards.settings import ModelSettings, folder
from cgrpo.rewards.several import FLOOR, Several, assigned, joined
from cgrpo.rewards.similarity import Encoder
from cgrpo.rewards.sketch import ModelSketch, stock_model
from cgrpo.section import TOYBOX, Place
from cgrpo.types import Batch, Task

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL.Image import Image
    from torch import Tensor

    from cgrpo.rewards.segmenters import Segmenter

SEGMENTED = 4  # pictures at a time
Masks = Literal["both", "reference", "none"]
BACKBONES = {  # model type -> transformers' model and image processor
    "dinov2": ("Dinov2Model", "BitImageProcessorPil"),
    "dinov2_with_registers": ("Dinov2WithRegistersModel", "BitImageProcessorPil"),
    "dinov3_vit": ("DINOv3ViTModel", "ViTImageProcessorPil"),
}


class DinoSegSettings(ModelSettings):
    """Identity: DINOv2 similarity of the segmented subjects (the paper)."""

    type: Literal["dino-seg"] = "dino-seg"
    path: Place = TOYBOX
    """Folder or hub id of a DINOv2 (or DINOv3) checkpoint, "toybox" (the paper: DINOv2-large), or "toybox-pair"."""
    segmenter: Place = TOYBOX
    """Folder or hub id of the segmenter: SAM with a ``detector``, SAM 3, or a Segformer that knows the subject's word;
    "toybox", or "toybox-pair". Empty with masks = "reference": the data set's own masks alone."""
    detector: Place = ""
    """Folder or hub id of a GroundingDINO checkpoint that finds the box SAM segments; empty for none."""
    masks: Masks = "both"
    """What is segmented: both pictures (the paper), the reference alone (the release), or nothing (plain DINO)."""
    several: Several = "mean"
    """The score of a picture of several subjects, each with a phrase of its own: the mean or the minimum of theirs."""

    def build(self, name: str, device: torch.device | str) -> DinoSeg:
        encoder = DinoEncoder(folder(self.path, "dino"), device, self.chunk)
        return DinoSeg(encoder, self.load_segmenter(device), self.masks, self.several)

    def load_segmenter(self, device: torch.device | str = "cpu") -> Segmenter | None:
        """As ``find_segmenter``; None if nothing is segmented."""
        if self.masks == "none" or not self.segmenter:
            return None
        return find_segmenter(self.segmenter, self.detector, device)

    def checkpoints(self) -> Mapping[str, Wanted]:
        if self.masks == "none":
            return {"path": "folder"}
        return {"path": "folder", "segmenter": "folder", "detector": "folder"}

    def models(self) -> tuple[ModelSketch, ...]:
        dino = stock_model(self.path, "dino", chunk=self.chunk)
        if self.masks == "none":
            return (dino,)
        # References are segmented once and remembered; generated pictures with "both" alone.
        return (dino, *segmenter_sketches(self.segmenter, self.detector, runs=self.masks == "both"))

    def lacks(self, task: Task) -> str:
        masked = bool(task.masks) and None not in task.masks
        if self.masks == "none":
            return ""
        if not self.segmenter:
            return "" if masked else "no mask for each reference, and there is no segmenter"
        return "" if self.masks == "reference" and masked else lacks_phrase(task)


def find_segmenter(path: str, detector: str, device: torch.device | str = "cpu") -> Segmenter:
    """SAM behind a detector, SAM 3, or a Segformer with a closed vocabulary. Raises UserError."""
    from cgrpo.rewards.segmenters import load_segmenter

    return load_segmenter(folder(path, "segmenter"), locate(detector, "folder") if detector else None, device)


def segmenter_sketches(path: str, detector: str, *, runs: bool = True) -> list[ModelSketch]:
    """The segmenter's models for ``plan``; ``runs``: on generated pictures, too."""
    parts = [(detector, ""), (path, "segmenter")]
    return [stock_model(place, own, chunk=SEGMENTED, runs=runs) for place, own in parts if place]


def lacks_phrase(task: Task) -> str:
    """What to say of a task without a phrase for the segmenter; "" for others."""
    if task.phrases or task.subject.strip(" ."):
        return ""
    return 'no subject (such as "dog") for the segmenter; give each one, or set masks = none'


class DinoEncoder(Encoder):
    """The CLS token of DINOv2 (with registers too) or of a DINOv3 ViT after the final norm, fp32.

    Preprocessing, as the folder says: DINOv2 short side 256 bicubic, centre crop 224; DINOv3 squash to 224 bilinear;
    ImageNet statistics; PIL only.
    """

    def __init__(self, folder: Path, device: torch.device | str = "cpu", chunk: int = 64):
        from cgrpo.rewards.loading import choose, load_pretrained

        model, processor = choose(folder, BACKBONES, "DINO")
        self.processor = load_pretrained(processor, folder)
        super().__init__(load_pretrained(model, folder), chunk, device)

    def prepare(self, pictures: list[Image]) -> Tensor:
        return self.processor(images=pictures, return_tensors="pt")["pixel_values"]

    def embed(self, pixels: Tensor) -> Tensor:
        return self.model(pixels).last_hidden_state[:, 0]


class SubjectPicture(NamedTuple):
    """A picture, the phrase for what counts in it, and its mask where the data set has one."""

    picture: Image
    phrase: str
    given_mask: Image | None = None

    def mask_HW(self) -> np.ndarray | None:
        """The given mask as booleans. Raises UserError unless it has the picture's size."""
        import numpy as np

        if self.given_mask is None:
            return None
        if self.given_mask.size != self.picture.size:
            raise UserError(
                f"the mask of a reference of {self.phrase!r} is {self.given_mask.size} pixels (width, height), its "
                f"picture {self.picture.size}",
                "make them the same",
            )
        return np.asarray(self.given_mask.convert("L")) > 127

    def fingerprint(self) -> tuple[str, ...]:
        return (self.phrase, of_picture(self.picture), "" if self.given_mask is None else of_picture(self.given_mask))


class DinoSeg(Reward):
    """Cosine of the DINO CLS tokens of the subject in the reference and in the generated picture. Range [-1, 1].

    ``masks``: "both" pictures are segmented (the paper's text), the "reference" only (the release), or "none" (plain
    DINO, as in the paper's pilot). A segmented picture is composited on a neutral colour and cropped to the subject.
    A mask that the data set gives for a reference comes before the segmenter. A picture in which nothing is found is
    scored whole, and counted in ``report``. With several references the mean cosine counts; with none NaN. The last
    4,096 references are encoded once.

    A task that shows several subjects has a phrase for each reference (``Batch.phrases``). With masks = "both" each
    is then compared with the region of the picture that is assigned to it (several.py), and ``several`` joins the
    scores. A subject that is missing scores 0; a picture in which none is found is NaN.
    """

    axis: Axis = "identity"
    unit: str = "cosine of DINO CLS tokens, -1 to 1"

    def __init__(
        self,
        encoder: Encoder,
        segmenter: Segmenter | None,
        masks: Masks = "both",
        several: Several = "mean",
        unit: str = unit,
    ):
        if masks == "both" and segmenter is None:
            raise UserError("masks = 'both' needs a segmenter for generated pictures; give one, or set masks = 'none'")
        self.encoder, self.segmenter, self.masks = encoder, segmenter, masks
        self.several: Several = several
        self.unit = unit
        self._references = EncodeOnce(self._encode_reference)
        self._left_whole: dict[str, list[bool]] = {}

    def to(self, device: torch.device | str) -> None:
        self.encoder.to(device)
        if self.segmenter is not None:
            self.segmenter.to(device)

    def report(self) -> dict[str, float]:
        """Shares of generated pictures and of references that were to be masked but scored whole, and of several
        subjects that were missing."""
        shares = {name: sum(whole) / len(whole) for name, whole in self._left_whole.items() if whole}
        self._left_whole = {}
        return shares

    def crops(self, subjects: Sequence[SubjectPicture]) -> tuple[list[Image], list[bool]]:
        """Each subject cut out of its picture, and whether the picture had to be left whole."""
        from cgrpo.rewards.regions import subject_crop

        pictures = [subject.picture.convert("RGB") for subject in subjects]
        masks = [subject.mask_HW() for subject in subjects]
        unmasked = [row for row, mask in enumerate(masks) if mask is None]
        if self.segmenter is not None and unmasked:
            phrases = [subjects[row].phrase for row in unmasked]
            segmented = self.segmenter.segment([pictures[row] for row in unmasked], phrases)
            for row, mask in zip(unmasked, segmented, strict=True):
                masks[row] = mask
        whole = [mask is None or not mask.any() for mask in masks]
        return [subject_crop(picture, mask) for picture, mask in zip(pictures, masks, strict=True)], whole

    def _encode_reference(self, subject: SubjectPicture) -> tuple[Tensor, bool]:
        """Its feature [C], and whether it had to be left whole."""
        pictures, whole = ([subject.picture], [False]) if self.masks == "none" else self.crops([subject])
        return self.encoder.pictures(pictures)[0], whole[0]

    def score(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        import torch

        if self._of_several(batch):
            return joined(self.each(images_NHWC, batch), self.several)
        return torch.stack([cosine_S.mean() for cosine_S in self._cosines(images_NHWC, batch)])

    def each(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        import torch

        several = self._of_several(batch)
        single = [n for n in range(len(batch)) if n not in several]
        scores_NS = torch.full((len(batch), max(map(len, batch.references), default=0)), torch.nan)
        parts = [(several, self._assigned)] * bool(several) + [(single, self._cosines)] * bool(single)
        for rows, scores_of in parts:
            for n, scores_S in zip(rows, scores_of(images_NHWC[rows], batch.select(rows)), strict=True):
                scores_NS[n, : len(scores_S)] = scores_S
        return scores_NS

    def _of_several(self, batch: Batch) -> list[int]:
        """The rows whose subjects are looked for one by one."""
        phrases = batch.phrases if self.masks == "both" and batch.phrases else ()
        return [n for n, row in enumerate(phrases) if len(row) > 1]

    def _cosines(self, images_NHWC: Tensor, batch: Batch) -> list[Tensor]:
        """Of each picture, as a whole or its subject, with each of its references."""
        pictures = to_pictures(images_NHWC)
        if self.masks == "both":
            pairs = zip(pictures, batch.subjects, strict=True)
            pictures, whole = self.crops([SubjectPicture(picture, phrase) for picture, phrase in pairs])
            self._left_whole.setdefault("unsegmented", []).extend(whole)
        features_NC = self.encoder.pictures(pictures)
        rows = zip(self._references_of(batch), features_NC, strict=True)
        return [row_SC @ feature_C if len(row_SC) else feature_C[:0] for row_SC, feature_C in rows]

    def _assigned(self, images_NHWC: Tensor, batch: Batch) -> list[Tensor]:
        """Of each subject with the region of its picture that is assigned to it."""
        import torch

        from cgrpo.rewards.regions import regions_of, subject_crop

        assert self.segmenter is not None and batch.phrases is not None
        pictures, scores = to_pictures(images_NHWC), []
        regions = regions_of(self.segmenter.instances, pictures, batch.phrases)
        crops = [
            subject_crop(picture, one.mask_HW) for picture, row in zip(pictures, regions, strict=True) for one in row
        ]
        features = iter(self.encoder.pictures(crops) if crops else ())
        for row_SC, phrases, found in zip(self._references_of(batch), batch.phrases, regions, strict=True):
            own_IC = torch.stack([next(features) for _ in found]) if found else row_SC[:0]
            allowed = [[phrase in region.phrases for region in found] for phrase in phrases]
            scores.append(assigned(row_SC @ own_IC.T, torch.tensor(allowed, dtype=torch.bool)))
            self._left_whole.setdefault("missing", []).extend((scores[-1] == FLOOR).tolist())
        return scores

    def _references_of(self, batch: Batch) -> list[Tensor]:
        """The features of each task's references [S, C]."""
        import torch

        masks = batch.reference_masks or [[None] * len(references) for references in batch.references]
        named = batch.phrases or [()] * len(batch)
        rows = []
        for references, given, phrase, phrases in zip(batch.references, masks, batch.subjects, named, strict=True):
            own = phrases or [phrase] * len(references)
            subjects = [SubjectPicture(*one) for one in zip(references, own, given, strict=True)]
            fingerprints = [subject.fingerprint() for subject in subjects]
            encoded = self._references(dict(zip(fingerprints, subjects, strict=True)))
            if self.masks != "none":
                self._left_whole.setdefault("reference_unsegmented", []).extend(encoded[f][1] for f in fingerprints)
            features = [encoded[f][0] for f in fingerprints]
            rows.append(torch.stack(features) if features else torch.empty(0, 0))
        return rows
