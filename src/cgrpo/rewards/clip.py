"""CLIP similarity of picture and prompt, and of picture and reference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

from cgrpo.rewards.base import Axis, EncodeOnce, Reward, digest, to_pictures
from cgrpo.rewards.loading import load_pretrained
from cgrpo.types import Batch


class ClipEncoder:
    """Unit-length CLIP embeddings of pictures and texts, fp32.

    Preprocessing, as the folder says (OpenAI: short side 224 bicubic, centre crop, CLIP statistics), PIL only; texts
    raw, cut at the model's length (77 tokens).
    """

    def __init__(self, folder: Path, chunk: int):
        self.processor = load_pretrained(CLIPImageProcessorPil, folder)
        self.tokenizer = load_pretrained(AutoTokenizer, folder)
        self.model = load_pretrained(CLIPModel, folder)
        self.chunk = chunk
        self.length = self.model.config.text_config.max_position_embeddings

    @torch.no_grad()
    def texts(self, texts: list[str]) -> Tensor:
        """[N, C]."""
        tokens = self.tokenizer(
            texts, padding="max_length", truncation=True, max_length=self.length, return_tensors="pt"
        ).to(self.model.device)
        rows = self.model.get_text_features(tokens["input_ids"], tokens["attention_mask"]).pooler_output
        return F.normalize(rows, dim=-1).cpu()

    @torch.no_grad()
    def pictures(self, pictures: Sequence[Image.Image]) -> Tensor:
        """[N, C]."""
        rows = []
        for first in range(0, len(pictures), self.chunk):
            part = [picture.convert("RGB") for picture in pictures[first : first + self.chunk]]
            pixels = self.processor(images=part, return_tensors="pt")["pixel_values"].to(self.model.device)
            rows.append(F.normalize(self.model.get_image_features(pixels).pooler_output, dim=-1).cpu())
        return torch.cat(rows)


class ClipText(Reward):
    """Cosine of CLIP's picture and text embeddings, the raw prompt, no prefix. Range [-1, 1].

    DreamBench's CLIP-T is ViT-B/32 and clamps negatives to 0; real pairs are never negative.
    """

    axis: Axis = "prompt"
    unit = "cosine of CLIP image and text embeddings, -1 to 1"

    def __init__(self, folder: Path, *, device: torch.device | str = "cpu", chunk: int = 64, remembered: int = 4096):
        self.encoder = ClipEncoder(folder, chunk)
        self._texts = EncodeOnce(self.encoder.texts, remembered)
        self.to(device)

    def to(self, device: torch.device | str) -> None:
        self.encoder.model.to(device)

    def __call__(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        texts = self._texts({prompt: prompt for prompt in batch.prompts})
        text_NC = torch.stack([texts[prompt] for prompt in batch.prompts])
        return (self.encoder.pictures(to_pictures(images_NHWC)) * text_NC).sum(-1)


class ClipImage(Reward):
    """CLIP-I: cosine of CLIP's embeddings of picture and reference, whole pictures; their mean over references.

    Range [-1, 1]; NaN without a reference. DreamBench uses ViT-B/32.
    """

    axis: Axis = "identity"
    unit = "cosine of CLIP image embeddings, -1 to 1"

    def __init__(self, folder: Path, *, device: torch.device | str = "cpu", chunk: int = 64, remembered: int = 4096):
        self.encoder = ClipEncoder(folder, chunk)
        self._references = EncodeOnce(self.encoder.pictures, remembered)
        self.to(device)

    def to(self, device: torch.device | str) -> None:
        self.encoder.model.to(device)

    def __call__(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        keys = [[digest(p) for p in row] for row in batch.references]
        known = self._references(
            {k: p for row, ks in zip(batch.references, keys, strict=True) for p, k in zip(row, ks, strict=True)}
        )
        made_NC = self.encoder.pictures(to_pictures(images_NHWC))
        means = [torch.stack([known[k] for k in row]).mean(0) if row else made_NC.new_tensor(torch.nan) for row in keys]
        return torch.stack([(row * mean).sum() for row, mean in zip(made_NC, means, strict=True)])
