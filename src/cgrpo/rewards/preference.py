"""Human preference by fine-tuned CLIP ViT-H/14 models: HPSv2 and PickScore."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from cgrpo.rewards.clip import ClipEncoder, PromptSimilarity
from cgrpo.rewards.pixels import CLIP, normalised, padded
from cgrpo.types import Batch


class HPSv2(PromptSimilarity):
    """HPSv2 (v2.1): cosine of picture and prompt by a CLIP ViT-H/14 trained on human preferences. About 0.2 to 0.35.

    Model: the published HPS_v2.1_compressed.pt, converted once to a transformers folder (convert.convert_open_clip),
    fp32; the published code runs in fp16. Preprocessing, as published: the long side to 224, antialiased bicubic on
    floats, black padding, CLIP statistics; nothing is cropped. Protocol: the raw prompt, no logit scale (some tables
    show it times 100). The published tokenizer also mends mojibake and HTML entities first; plain prompts are equal.
    """

    unit = "HPSv2's cosine of picture and prompt, -1 to 1; good pictures about 0.3"

    def __init__(self, folder: Path, *, device: torch.device | str = "cpu", chunk: int = 16, remembered: int = 4096):
        super().__init__(ClipEncoder(folder, chunk, prepare=_padded), device, remembered)


class PickScore(PromptSimilarity):
    """PickScore: CLIP ViT-H/14's cosine of picture and prompt, times its logit scale (about 100). About 18 to 24.

    Model: yuvalkirstain/PickScore_v1, a transformers folder, fp32. Preprocessing and tokenizer: those of
    laion/CLIP-ViT-H-14-laion2B-s32B-b79K (short side 224 bicubic, centre crop, CLIP statistics), from ``settings`` or,
    without it, from the folder. Protocol: the raw prompt; the score is a logit: differences count, not the level.
    """

    unit = "PickScore's logit: scale (about 100) times cosine"

    def __init__(
        self,
        folder: Path,
        *,
        settings: Path | None = None,
        device: torch.device | str = "cpu",
        chunk: int = 16,
        remembered: int = 4096,
    ):
        super().__init__(ClipEncoder(folder, chunk, settings=settings), device, remembered)

    def __call__(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        return self.encoder.model.logit_scale.exp().cpu() * super().__call__(images_NHWC, batch)


def _padded(pictures: Sequence[Image.Image], side: int) -> Tensor:
    return normalised(torch.stack([padded(picture, side) for picture in pictures]), CLIP)
