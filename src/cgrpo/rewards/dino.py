"""DINO: similarity of segmented subjects (DINO-Seg, the paper's identity reward), or of whole pictures (DreamBench)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from cgrpo.errors import UserError
from cgrpo.fingerprint import of_picture
from cgrpo.hub import Wanted, locate
from cgrpo.rewards.base import Axis, EncodeOnce, Reward, to_pictures
from cgrpo.rewards.settings import ModelSettings, folder
from cgrpo.rewards.similarity import Encoder, PictureSimilarity
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
SHORT, SIDE = 256, 224  # pixels: DreamBench's resize and crop
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
    """Folder or hub id of a DINOv2 (or DINOv3) checkpoint, or "toybox" (the paper: DINOv2-large)."""
    segmenter: Place = TOYBOX
    """Folder or hub id of the segmenter: SAM with a ``detector``, SAM 3, or a Segformer that knows the subject's word;
    or "toybox". Empty with masks = "reference": the data set's own masks alone."""
    detector: Place = ""
    """Folder or hub id of a GroundingDINO checkpoint that finds the box SAM segments; empty for none."""
    masks: Masks = "both"
    """What is segmented: both pictures (the paper), the reference alone (the release), or nothing (plain DINO)."""

    def build(self, name: str, device: torch.device | str) -> DinoSeg:
        encoder = DinoEncoder(folder(self.path, "dino"), device, self.chunk)
        return DinoSeg(encoder, self.load_segmenter(device), self.masks)

    def load_segmenter(self, device: torch.device | str = "cpu") -> Segmenter | None:
        """SAM behind a detector, SAM 3, or a Segformer with a closed vocabulary; None if nothing is segmented."""
        from cgrpo.rewards.segmenters import load_segmenter

        if self.masks == "none" or not self.segmenter:
            return None
        detector = locate(self.detector, "folder") if self.detector else None
        return load_segmenter(folder(self.segmenter, "segmenter"), detector, device)

    def checkpoints(self) -> Mapping[str, Wanted]:
        if self.masks == "none":
            return {"path": "folder"}
        return {"path": "folder", "segmenter": "folder", "detector": "folder"}

    def models(self) -> tuple[ModelSketch, ...]:
        dino = stock_model(self.path, "dino", chunk=self.chunk)
        if self.masks == "none":
            return (dino,)
        # References are segmented once and remembered; generated pictures with "both" alone.
        runs, parts = self.masks == "both", [(self.detector, ""), (self.segmenter, "segmenter")]
        return (dino, *(stock_model(path, own, chunk=SEGMENTED, runs=runs) for path, own in parts if path))

    def lacks(self, task: Task) -> str:
        masked = bool(task.masks) and None not in task.masks
        if self.masks == "none":
            return ""
        if not self.segmenter:
            return "" if masked else "no mask for each reference, and there is no segmenter"
        if task.subject.strip(" .") or (self.masks == "reference" and masked):
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
    """

    axis: Axis = "identity"
    unit = "cosine of DINO CLS tokens, -1 to 1"

    def __init__(self, encoder: Encoder, segmenter: Segmenter | None, masks: Masks = "both"):
        if masks == "both" and segmenter is None:
            raise UserError("masks = 'both' needs a segmenter for generated pictures; give one, or set masks = 'none'")
        self.encoder, self.segmenter, self.masks = encoder, segmenter, masks
        self._references = EncodeOnce(self._encode_reference)
        self._left_whole: dict[str, list[bool]] = {}

    def to(self, device: torch.device | str) -> None:
        self.encoder.to(device)
        if self.segmenter is not None:
            self.segmenter.to(device)

    def report(self) -> dict[str, float]:
        """Shares of generated pictures and of references that were to be masked but scored whole."""
        shares = {name: sum(whole) / len(whole) for name, whole in self._left_whole.items() if whole}
        self._left_whole = {}
        return shares

    def crops(self, subjects: Sequence[SubjectPicture]) -> tuple[list[Image], list[bool]]:
        """Each subject cut out of its picture, and whether the picture had to be left whole."""
        from cgrpo.rewards.segmenters import subject_crop

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

        pictures = to_pictures(images_NHWC)
        if self.masks == "both":
            pairs = zip(pictures, batch.subjects, strict=True)
            pictures, whole = self.crops([SubjectPicture(picture, phrase) for picture, phrase in pairs])
            self._left_whole.setdefault("unsegmented", []).extend(whole)
        masks = batch.reference_masks or [[None] * len(references) for references in batch.references]
        rows = zip(self.encoder.pictures(pictures), batch.references, masks, batch.subjects, strict=True)
        return torch.stack([self._score_row(*row) for row in rows])

    def _score_row(
        self, feature_C: Tensor, references: Sequence[Image], masks: Sequence[Image | None], phrase: str
    ) -> Tensor:
        """The mean cosine with the row's references, NaN without one."""
        import torch

        subjects = [SubjectPicture(one, phrase, mask) for one, mask in zip(references, masks, strict=True)]
        if not subjects:
            return torch.tensor(torch.nan)
        fingerprints = [subject.fingerprint() for subject in subjects]
        encoded = self._references(dict(zip(fingerprints, subjects, strict=True)))
        if self.masks != "none":
            self._left_whole.setdefault("reference_unsegmented", []).extend(encoded[f][1] for f in fingerprints)
        return (torch.stack([encoded[f][0] for f in fingerprints]) @ feature_C).mean()


class DinoSettings(ModelSettings):
    """Identity: DreamBench's DINO, DINO v1 ViT-S/16 similarity of whole pictures."""

    type: Literal["dino"] = "dino"
    path: Place = "facebook/dino-vits16"
    """Folder or hub id of DINO v1 ViT-S/16."""

    def build(self, name: str, device: torch.device | str) -> Reward:
        """The cosine of CLS tokens, a fraction, not times 100. Range [-1, 1].

        DreamBench gives one reference per subject, at its full size. DreamBooth averages over all real photos.
        """
        encoder = DinoV1Encoder(locate(self.path, "folder"), device, self.chunk)
        return PictureSimilarity(encoder, "cosine of DINO v1 CLS tokens, -1 to 1")


class DinoV1Encoder(Encoder):
    """The CLS token of DINO v1 ViT-S/16 (facebook/dino-vits16, without pooler) after the final norm, fp32.

    Preprocessing: short side 256 bicubic (PIL), centre crop 224, ImageNet statistics, whatever the folder's own
    preprocessor_config.json says: the published one squashes to 224, which gives other numbers.
    """

    def __init__(self, folder: Path, device: torch.device | str, chunk: int):
        from cgrpo.rewards.loading import choose, load_pretrained

        model = load_pretrained(choose(folder, {"vit": "ViTModel"}, "DINO"), folder, pooler=False)
        super().__init__(model, chunk, device)

    def prepare(self, pictures: list[Image]) -> Tensor:
        from cgrpo.rewards.pixels import IMAGENET, as_floats, centre_crop, normalised

        return normalised(as_floats([centre_crop(picture, SHORT, SIDE) for picture in pictures]), IMAGENET)

    def embed(self, pixels: Tensor) -> Tensor:
        return self.model(pixels).last_hidden_state[:, 0]
