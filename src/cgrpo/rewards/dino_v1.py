"""DreamBench's DINO: similarity of whole pictures by the first DINO."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import ViTModel

from cgrpo.errors import UserError
from cgrpo.rewards.loading import choose, load_pretrained
from cgrpo.rewards.pixels import IMAGENET, as_floats, centre_crop, normalised
from cgrpo.rewards.similarity import PictureSimilarity, in_chunks

SHORT, SIDE = 256, 224  # pixels: resized to, cropped to


class DinoV1(PictureSimilarity):
    """DreamBench's DINO: cosine of the CLS tokens of picture and reference, whole; the mean over references.

    Range [-1, 1], a fraction, not times 100; NaN without a reference.
    Model: DINO v1 ViT-S/16 (facebook/dino-vits16: a ViTModel without pooler), the CLS token after the final norm, fp32.
    Preprocessing: short side 256 bicubic (PIL), centre crop 224, ImageNet statistics, whatever the folder's own
    preprocessor_config.json says: the published one squashes to 224, which is another number.
    Protocol: DreamBench gives one reference a subject, at its full size. DreamBooth averages over all real pictures.
    """

    unit = "cosine of DINO v1 CLS tokens, -1 to 1"

    def __init__(self, folder: Path, *, device: torch.device | str = "cpu", chunk: int = 64, remembered: int = 4096):
        self.model = load_pretrained(choose(folder, {"vit": ViTModel}, "DINO checkpoint"), folder, pooler=False)
        if self.model.config.image_size != SIDE:
            raise UserError(
                f"DINO checkpoint {folder}: made for pictures of {self.model.config.image_size} pixels, DreamBench's "
                f"takes {SIDE}; give DINO v1 ViT-S/16, for instance facebook/dino-vits16"
            )
        self.chunk = chunk
        super().__init__(self.features, remembered)
        self.to(device)

    def to(self, device: torch.device | str) -> None:
        self.device = device
        self.model.to(device)

    def features(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Unit-length CLS tokens [N, C]."""
        return in_chunks(self._encode_chunk, pictures, self.chunk)

    @torch.no_grad()
    def _encode_chunk(self, pictures: Sequence[Image.Image]) -> Tensor:
        return F.normalize(self.model(self.prepare(pictures).to(self.device)).last_hidden_state[:, 0], dim=-1).cpu()

    def prepare(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Pixel values [N, 3, 224, 224]."""
        return normalised(as_floats([centre_crop(picture, SHORT, SIDE) for picture in pictures]), IMAGENET)
