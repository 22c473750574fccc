"""DreamBench's DINO: similarity of whole pictures by DINO v1."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cgrpo.hub import locate
from cgrpo.rewards.base import Reward
from cgrpo.rewards.settings import ModelSettings
from cgrpo.rewards.similarity import Encoder, PictureSimilarity
from cgrpo.section import Place

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor

SHORT, SIDE = 256, 224  # pixels: DreamBench's resize and crop


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
