"""CLIP similarity of picture and prompt."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

from cgrpo.rewards.base import Axis, to_pictures
from cgrpo.rewards.loading import load_pretrained
from cgrpo.types import Batch


class ClipText:
    """Cosine of CLIP's picture and text embeddings, the raw prompt, no prefix. Range [-1, 1]."""

    axis: Axis = "prompt"
    unit = "cosine of CLIP image and text embeddings, -1 to 1"

    def __init__(self, folder: Path, chunk: int = 64):
        self.processor = load_pretrained(CLIPImageProcessorPil, folder)
        self.tokenizer = load_pretrained(AutoTokenizer, folder)
        self.model = load_pretrained(CLIPModel, folder)
        self.chunk = chunk
        self._texts: dict[str, Tensor] = {}

    @torch.no_grad()
    def text_features(self, prompts: tuple[str, ...]) -> Tensor:
        """Unit-length text embeddings [N, C]; each distinct prompt is encoded once."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._texts]
        if new:
            tokens = self.tokenizer(new, padding="max_length", truncation=True, return_tensors="pt")
            rows = self.model.get_text_features(tokens["input_ids"], tokens["attention_mask"]).pooler_output
            self._texts.update(zip(new, F.normalize(rows, dim=-1), strict=True))
        return torch.stack([self._texts[prompt] for prompt in prompts])

    @torch.no_grad()
    def image_features(self, images_NHWC: Tensor) -> Tensor:
        """Unit-length picture embeddings [N, C]."""
        pictures = to_pictures(images_NHWC)
        rows = []
        for first in range(0, len(pictures), self.chunk):
            pixels = self.processor(images=pictures[first : first + self.chunk], return_tensors="pt")["pixel_values"]
            rows.append(self.model.get_image_features(pixels).pooler_output)
        return F.normalize(torch.cat(rows), dim=-1)

    def __call__(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        return (self.image_features(images_NHWC) * self.text_features(batch.prompts)).sum(-1)
