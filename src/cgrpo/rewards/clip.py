"""CLIP similarity of picture and prompt, and of picture and reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

from cgrpo.rewards.base import Axis, EncodeOnce, Reward, to_pictures
from cgrpo.rewards.loading import load_pretrained
from cgrpo.rewards.similarity import PictureSimilarity, in_chunks
from cgrpo.types import Batch

Prepare = Callable[[Sequence[Image.Image], int], Tensor]  # pictures and the model's side -> pixel values [N, 3, H, W]


class ClipEncoder:
    """Unit-length CLIP embeddings of pictures, and of texts but with ``texts`` False (half the memory), fp32.

    Preprocessing, as the folder says (OpenAI: short side 224 bicubic, centre crop, CLIP statistics), PIL only, or
    ``prepare``'s; texts raw, cut at the model's length (77 tokens). ``settings``: a folder with the tokenizer and the
    preprocessing, where they do not lie beside the weights.
    """

    def __init__(
        self,
        folder: Path,
        chunk: int,
        *,
        texts: bool = True,
        settings: Path | None = None,
        prepare: Prepare | None = None,
    ):
        beside = folder if settings is None else settings
        self.processor = None if prepare else load_pretrained(CLIPImageProcessorPil, beside)
        self.tokenizer = load_pretrained(AutoTokenizer, beside) if texts else None
        self.model = load_pretrained(CLIPModel, folder)
        if not texts:
            del self.model.text_model, self.model.text_projection
        self.chunk, self._prepare = chunk, prepare
        self.length = self.model.config.text_config.max_position_embeddings

    @torch.no_grad()
    def texts(self, texts: list[str]) -> Tensor:
        """[N, C]."""
        assert self.tokenizer is not None, "an encoder of pictures alone"
        tokens = self.tokenizer(
            texts, padding="max_length", truncation=True, max_length=self.length, return_tensors="pt"
        ).to(self.model.device)
        rows = self.model.get_text_features(tokens["input_ids"], tokens["attention_mask"]).pooler_output
        return F.normalize(rows, dim=-1).cpu()

    def pictures(self, pictures: Sequence[Image.Image]) -> Tensor:
        """[N, C]."""
        return in_chunks(self._encode_chunk, pictures, self.chunk)

    @torch.no_grad()
    def _encode_chunk(self, pictures: Sequence[Image.Image]) -> Tensor:
        pixels = self.prepare(pictures).to(self.model.device)
        return F.normalize(self.model.get_image_features(pixels).pooler_output, dim=-1).cpu()

    def prepare(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Pixel values [N, 3, H, W]."""
        rgb = [picture.convert("RGB") for picture in pictures]
        if self.processor is None:
            assert self._prepare is not None
            return self._prepare(rgb, self.model.config.vision_config.image_size)
        return self.processor(images=rgb, return_tensors="pt")["pixel_values"]


class PromptSimilarity(Reward):
    """Cosine of ``encoder``'s embeddings of picture and prompt; the last ``remembered`` prompts are encoded once."""

    axis: Axis = "prompt"

    def __init__(self, encoder: ClipEncoder, device: torch.device | str, remembered: int):
        self.encoder = encoder
        self._texts = EncodeOnce(lambda text: encoder.texts([text])[0], remembered)
        self.to(device)

    def to(self, device: torch.device | str) -> None:
        self.encoder.model.to(device)

    def __call__(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        texts = self._texts({prompt: prompt for prompt in batch.prompts})
        text_NC = torch.stack([texts[prompt] for prompt in batch.prompts])
        return (self.encoder.pictures(to_pictures(images_NHWC)) * text_NC).sum(-1)


class ClipText(PromptSimilarity):
    """CLIP-T: cosine of CLIP's embeddings of picture and prompt, the raw prompt, no prefix. Range [-1, 1].

    Model: any CLIP folder, fp32; DreamBench's CLIP-T is OpenAI's ViT-B/32, L/14 gives other numbers. Preprocessing:
    ClipEncoder's. Protocol: DreamBench clamps negative cosines to 0, with weight 1 (not 2.5, not times 100); nothing is
    clamped here, so that a reward tells bad from worse. Real pairs are never negative.
    """

    unit = "cosine of CLIP image and text embeddings, -1 to 1"

    def __init__(self, folder: Path, *, device: torch.device | str = "cpu", chunk: int = 64, remembered: int = 4096):
        super().__init__(ClipEncoder(folder, chunk), device, remembered)


class ClipImage(PictureSimilarity):
    """CLIP-I: cosine of CLIP's embeddings of picture and reference, whole pictures; their mean over references.

    Range [-1, 1]; NaN without a reference. Model: any CLIP folder, fp32; DreamBench's CLIP-I is OpenAI's ViT-B/32 with
    one reference a subject at its full size. Preprocessing: ClipEncoder's.
    """

    unit = "cosine of CLIP image embeddings, -1 to 1"

    def __init__(self, folder: Path, *, device: torch.device | str = "cpu", chunk: int = 64, remembered: int = 4096):
        self.encoder = ClipEncoder(folder, chunk, texts=False)
        super().__init__(self.encoder.pictures, remembered)
        self.to(device)

    def to(self, device: torch.device | str) -> None:
        self.encoder.model.to(device)
