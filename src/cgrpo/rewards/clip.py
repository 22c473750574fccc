"""CLIP: similarity of picture and prompt, of picture and reference, and two models fine-tuned on human preferences."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from cgrpo.hub import Wanted, locate
from cgrpo.rewards.base import Reward
from cgrpo.rewards.settings import ModelSettings, folder
from cgrpo.rewards.similarity import Encoder, PictureSimilarity, PromptSimilarity
from cgrpo.rewards.sketch import ModelSketch, stock_model
from cgrpo.section import TOYBOX, Place, Positive

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor


class ClipSettings(ModelSettings):
    """Prompt: CLIP similarity of picture and text (DreamBench's CLIP-T: ViT-B/32, there clamped at 0)."""

    type: Literal["clip"] = "clip"
    path: Place = TOYBOX
    """Folder or hub id of a CLIP checkpoint, or "toybox"."""

    def build(self, name: str, device: torch.device | str) -> Reward:
        """CLIP-T: the cosine with the raw prompt, no prefix. Range [-1, 1].

        DreamBench's CLIP-T is OpenAI's ViT-B/32; L/14 gives other numbers. DreamBench clamps negative cosines to 0,
        with weight 1 (not 2.5, not times 100). Nothing is clamped here, so that a reward tells bad from worse; real
        pairs are never negative.
        """
        encoder = ClipEncoder(folder(self.path, "clip"), device, self.chunk)
        return PromptSimilarity(encoder, "cosine of CLIP image and text embeddings, -1 to 1")


class ClipImageSettings(ModelSettings):
    """Identity: CLIP similarity of whole pictures (DreamBench's CLIP-I: ViT-B/32)."""

    type: Literal["clip-i"] = "clip-i"
    path: Place = "openai/clip-vit-base-patch32"
    """Folder or hub id of a CLIP checkpoint, or "toybox"."""

    def build(self, name: str, device: torch.device | str) -> Reward:
        """CLIP-I. Range [-1, 1]. DreamBench takes OpenAI's ViT-B/32 and one reference per subject at its full size."""
        encoder = ClipEncoder(folder(self.path, "clip"), device, self.chunk, texts=False)
        return PictureSimilarity(encoder, "cosine of CLIP image embeddings, -1 to 1")

    def models(self) -> tuple[ModelSketch, ...]:
        return (stock_model(self.path, chunk=self.chunk, texts=False),)


class HpsV2Settings(ModelSettings):
    """Prompt: HPSv2's human preference score (v2.1)."""

    type: Literal["hpsv2"] = "hpsv2"
    path: Place
    """Folder that `cgrpo rewards convert` makes once from HPS_v2.1_compressed.pt."""
    chunk: Positive = 16
    """Pictures per forward."""
    conversions: ClassVar = {"hpsv2": "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"}

    def build(self, name: str, device: torch.device | str) -> Reward:
        """HPSv2 (v2.1): the cosine by a CLIP ViT-H/14 trained on human preferences. About 0.2 to 0.35.

        In fp32; the published code runs in fp16. Preprocessing, as published: the long side to 224, antialiased
        bicubic on floats, black padding, CLIP statistics; nothing is cropped. The raw prompt, no logit scale (some
        tables show it times 100). The published tokenizer also repairs mojibake and HTML entities first; plain
        prompts are equal.
        """
        encoder = ClipEncoder(locate(self.path, "folder"), device, self.chunk, padded=True)
        return PromptSimilarity(encoder, "HPSv2's cosine of picture and prompt, -1 to 1; good pictures about 0.3")

    @classmethod
    def convert(cls, form: str, file: Path, out: Path, reference: str) -> Path:
        from cgrpo.rewards.convert import convert_open_clip

        return convert_open_clip(file, out, locate(reference, "settings"))


class PickScoreSettings(ModelSettings):
    """Prompt: PickScore's human preference logit."""

    type: Literal["pickscore"] = "pickscore"
    path: Place = "yuvalkirstain/PickScore_v1"
    """Folder or hub id of PickScore's weights."""
    processor: Place = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
    """Folder or hub id of its tokenizer and preprocessing; empty: those in ``path``."""
    chunk: Positive = 16
    """Pictures per forward."""

    def checkpoints(self) -> Mapping[str, Wanted]:
        return {"path": "folder", "processor": "settings"}

    def build(self, name: str, device: torch.device | str) -> Reward:
        """PickScore: the cosine by CLIP ViT-H/14, times the checkpoint's logit scale (about 100). About 18 to 24.

        In fp32, with the tokenizer and preprocessing of laion/CLIP-ViT-H-14-laion2B-s32B-b79K (short side 224 bicubic,
        centre crop, CLIP statistics). The score is a logit: differences count, not the level.
        """
        beside = locate(self.processor, "settings") if self.processor else None
        encoder = ClipEncoder(locate(self.path, "folder"), device, self.chunk, settings=beside)
        scale = encoder.model.logit_scale.exp().item()
        return PromptSimilarity(encoder, "PickScore's logit: scale (about 100) times cosine", scale)


class ClipEncoder(Encoder):
    """CLIP embeddings in fp32, of pictures alone (half the memory) if ``texts`` is False.

    Preprocessing: as the folder says (OpenAI: short side 224 bicubic, centre crop, CLIP statistics), PIL only;
    ``padded``: the whole picture with black around it. Texts: raw, cut at the model's length (77 tokens).
    ``settings``: the folder with tokenizer and preprocessing, if they do not lie beside the weights.
    """

    def __init__(
        self,
        folder: Path,
        device: torch.device | str,
        chunk: int,
        *,
        texts: bool = True,
        settings: Path | None = None,
        padded: bool = False,
    ):
        from cgrpo.rewards.loading import load_pretrained

        beside = settings or folder
        self.padded = padded
        self.processor = None if padded else load_pretrained("CLIPImageProcessorPil", beside)
        self.tokenizer = load_pretrained("AutoTokenizer", beside) if texts else None
        model = load_pretrained("CLIPModel", folder)
        if not texts:
            del model.text_model, model.text_projection
        self.length = model.config.text_config.max_position_embeddings
        super().__init__(model, chunk, device)

    def prepare(self, pictures: list[Image]) -> Tensor:
        if self.processor is None:
            from cgrpo.rewards.pixels import CLIP, normalised, padded

            return normalised(padded(pictures, self.model.config.vision_config.image_size), CLIP)
        return self.processor(images=pictures, return_tensors="pt")["pixel_values"]

    def embed(self, pixels: Tensor) -> Tensor:
        return self.model.get_image_features(pixels).pooler_output

    def read(self, texts: list[str]) -> Tensor:
        assert self.tokenizer is not None, "an encoder of pictures alone"
        tokens = self.tokenizer(
            texts, padding="max_length", truncation=True, max_length=self.length, return_tensors="pt"
        ).to(self.device)
        return self.model.get_text_features(tokens["input_ids"], tokens["attention_mask"]).pooler_output
