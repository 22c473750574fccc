"""Face: the similarity of faces, by OpenCV's own detector and recogniser (YuNet and SFace)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from cgrpo.errors import UserError
from cgrpo.extensions import is_installed
from cgrpo.fingerprint import of_file, of_picture
from cgrpo.hub import Wanted, locate
from cgrpo.rewards.base import Axis, EncodeOnce, Reward, to_pictures
from cgrpo.rewards.settings import RewardSettings
from cgrpo.rewards.several import FLOOR, assignment, joined
from cgrpo.section import Place, Share
from cgrpo.types import Batch

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL.Image import Image
    from torch import Tensor

SIDE = 112  # pixels of an aligned face
OVERLAP, MOST = 0.3, 5000  # OpenCV's defaults: of two boxes that overlap more the surer counts; boxes before that
REMEMBERED = 1024  # references


class FaceSettings(RewardSettings):
    """Identity: similarity of the faces in picture and references, by OpenCV's YuNet and SFace."""

    type: Literal["face"] = "face"
    path: Place = "opencv/face_recognition_sface/face_recognition_sface_2021dec.onnx"
    """The recogniser's ONNX file: SFace, or any ArcFace-like model that takes aligned faces of 112 x 112 pixels."""
    detector: Place = "opencv/face_detection_yunet/face_detection_yunet_2023mar.onnx"
    """YuNet's ONNX file."""
    centred: bool = False
    """Give the recogniser pixels from -1 to 1, as InsightFace's ArcFace models want; else 0 to 255, as SFace does."""
    confidence: Share = 0.9
    """How sure the detector must be that something is a face."""

    packages: ClassVar = ("cv2",)

    def missing(self) -> list[str]:
        installed = is_installed("cv2")
        return [] if installed else ["needs OpenCV: pip install 'customized-grpo[face]' (opencv-python-headless)"]

    def checkpoints(self) -> Mapping[str, Wanted]:
        return {"path": "file", "detector": "file"}

    def build(self, name: str, device: torch.device | str) -> Face:
        """The reward; OpenCV computes on the CPU, whatever the device."""
        return Face(locate(self.detector, "file"), locate(self.path, "file"), self.centred, self.confidence)


class AlignedFace(NamedTuple):
    """A face as OpenCV aligned it (uint8 BGR [112, 112, 3]), and its embedding [1, C] of any length."""

    pixels: np.ndarray
    embedding: np.ndarray


class Face(Reward):
    """Cosine of the embeddings of each reference's face and the face in the picture that stands for it. Range [0, 1].

    Each reference shows one face. The picture's faces are assigned to the references so that the sum of cosines is
    largest, and none counts twice. A reference without a face scores 0, and so does a negative cosine: a face that is
    left out is never better than a wrong one. With several references the mean counts. Without a reference, or where
    OpenCV fails or an embedding is not finite, the score is NaN. The last 1,024 references are encoded once.
    Raises UserError for a file that is no such model, and for a reference that shows no face or several.
    """

    axis: Axis = "identity"
    unit = "cosine of face embeddings, 0 to 1"

    def __init__(self, detector: Path, recogniser: Path, centred: bool = False, confidence: float = 0.9):
        import cv2

        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
        self.centred, self.confidence = centred, confidence
        self._detector: Any = _load("face detector", detector, self._make_detector)
        self._recogniser: Any = _load("face recogniser", recogniser, self._make_recogniser)
        self.weights = {"detector": of_file(detector), "recogniser": of_file(recogniser)}
        self._references = EncodeOnce(self._encode_reference, REMEMBERED)
        self._without: list[bool] = []
        self._copying: list[float] = []

    def _make_detector(self, path: str) -> Any:
        import cv2
        import numpy as np

        detector = cv2.FaceDetectorYN.create(path, "", (SIDE, SIDE), self.confidence, OVERLAP, MOST)
        detector.detect(np.zeros((SIDE, SIDE, 3), np.uint8))  # another model shows only when it runs
        return detector

    def _make_recogniser(self, path: str) -> Any:
        import cv2
        import numpy as np

        recogniser = cv2.FaceRecognizerSF.create(path, "")
        recogniser.feature(np.zeros((SIDE, SIDE, 3), np.uint8))
        return recogniser

    def report(self) -> dict[str, float]:
        """The share of pictures without a face, and how near faces are to copies of their references, pixel by pixel.

        ``copy_paste`` is ``measures.CopyPaste`` of the aligned faces; their mean, 1 is a copy.
        """
        lists = {"no_face": self._without, "copy_paste": self._copying}
        self._without, self._copying = [], []
        return {name: sum(values) / len(values) for name, values in lists.items() if values}

    def faces(self, picture: Image) -> list[AlignedFace]:
        """Every face in a picture. Raises cv2.error where OpenCV fails."""
        import cv2
        import numpy as np

        pixels = cv2.cvtColor(np.asarray(picture.convert("RGB")), cv2.COLOR_RGB2BGR)
        self._detector.setInputSize(picture.size)
        boxes = self._detector.detect(pixels)[1]
        aligned = [self._recogniser.alignCrop(pixels, box) for box in ([] if boxes is None else boxes)]
        return [AlignedFace(face, self._recogniser.feature(self._prepared(face))) for face in aligned]

    def _prepared(self, face: np.ndarray) -> np.ndarray:
        return (face.astype("float32") - 127.5) / 127.5 if self.centred else face

    def _encode_reference(self, named: tuple[str, Image]) -> AlignedFace:
        where, picture = named
        faces = self.faces(picture)
        if len(faces) != 1:
            shown = f"shows {len(faces)} faces" if faces else "shows no face"
            raise UserError(f"{where} {shown}", "give a photo with one face, cropped to that person")
        return faces[0]

    def score(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        return joined(self.each(images_NHWC, batch), "mean")

    def each(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        import torch

        rows, fingerprints = [], {id(one): of_picture(one) for row in batch.references for one in row}
        for picture, task, row in zip(to_pictures(images_NHWC), batch.ids, batch.references, strict=True):
            keys = [fingerprints[id(one)] for one in row]
            where: dict[Hashable, tuple[str, Image]] = {
                key: (f"task {task}: reference {n}", row[n - 1]) for n, key in enumerate(keys, 1)
            }
            encoded = self._references(where)
            rows.append(self._scores(picture, [encoded[key] for key in keys]))
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=torch.nan)

    def _scores(self, picture: Image, references: Sequence[AlignedFace]) -> Tensor:
        """Of each reference [R]."""
        import cv2
        import torch

        scores_R = torch.full((len(references),), torch.nan)
        if not references:
            return scores_R
        try:
            faces = self.faces(picture)
            cosine_RF = torch.tensor([[self._cosine(face, one) for face in faces] for one in references])
        except cv2.error:
            return scores_R
        self._without.append(not faces)
        if not cosine_RF.isfinite().all():
            return scores_R
        reached_RF = cosine_RF.clamp(0, 1)
        pairs = assignment(reached_RF)
        self._copying += [_copy_paste(faces[face], references[one]) for one, face in zip(*pairs, strict=True)]
        scores_R[:] = FLOOR
        scores_R[pairs[0]] = reached_RF[pairs]
        return scores_R

    def _cosine(self, face: AlignedFace, reference: AlignedFace) -> float:
        import cv2

        # Copies: OpenCV brings what it compares to unit length, in place.
        pair = (face.embedding.copy(), reference.embedding.copy())
        return self._recogniser.match(*pair, cv2.FaceRecognizerSF_FR_COSINE)


def _copy_paste(face: AlignedFace, reference: AlignedFace) -> float:
    """``CopyPaste`` of two aligned faces."""
    import torch
    from PIL import Image

    from cgrpo.rewards.measures import CopyPaste

    image_1HWC = torch.from_numpy(face.pixels)[None]
    batch = Batch(("face",), ("",), ((Image.fromarray(reference.pixels),),), ("",))
    return CopyPaste()(image_1HWC, batch).item()


def _load(kind: str, path: Path, make: Any) -> Any:
    """What ``make`` makes of a file. Raises UserError where OpenCV can't read or run it."""
    import cv2

    try:
        return make(str(path))
    except cv2.error as error:
        reason = " ".join(str(error.err).split())[:150]
        raise UserError(f"{path}: not a {kind} that OpenCV can run ({reason})", "give its ONNX file") from None
