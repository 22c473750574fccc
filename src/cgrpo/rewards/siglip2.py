"""SigLIP 2: similarity of picture and reference, or of picture and prompt."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import model_validator

from cgrpo.hub import Wanted, locate
from cgrpo.rewards.base import Reward
from cgrpo.rewards.dino import DinoSeg, find_segmenter, lacks_phrase, segmenter_sketches
from cgrpo.rewards.settings import AxisName, ModelSettings
from cgrpo.rewards.several import Several
from cgrpo.rewards.similarity import Encoder, PictureSimilarity, PromptSimilarity
from cgrpo.rewards.sketch import ModelSketch, stock_model
from cgrpo.section import Place, Positive
from cgrpo.types import Task

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor

MODELS = {  # model type -> transformers' model and image processor
    "siglip": ("SiglipModel", "SiglipImageProcessorPil"),  # a fixed resolution, SigLIP 2's too
    "siglip2": ("Siglip2Model", "Siglip2ImageProcessorPil"),  # NaFlex: the picture's own aspect ratio
}


class Siglip2Settings(ModelSettings):
    """Identity or prompt: SigLIP 2 similarity of whole pictures, or of picture and text."""

    type: Literal["siglip2"] = "siglip2"
    path: Place = "google/siglip2-so400m-patch14-384"
    """Folder or hub id of a SigLIP 2 checkpoint, of a fixed resolution or NaFlex; SigLIP's own work, too."""
    axis: AxisName = "identity"
    """"identity" compares with the references, "prompt" with the text."""
    segmenter: Place = ""
    """For identity: compare subjects that are segmented as by dino-seg, in both pictures. Empty: whole pictures."""
    detector: Place = ""
    """As of dino-seg."""
    several: Several = "mean"
    """As of dino-seg."""
    chunk: Positive = 16
    """Pictures per forward."""

    @model_validator(mode="after")
    def _segmented_identity(self) -> Self:
        if self.segmenter and self.axis == "prompt":
            raise ValueError("segmenter is for axis = 'identity'; leave it out")
        return self

    def checkpoints(self) -> Mapping[str, Wanted]:
        if not self.segmenter:
            return {"path": "folder"}
        return {"path": "folder", "segmenter": "folder", "detector": "folder"}

    def models(self) -> tuple[ModelSketch, ...]:
        encoder = stock_model(self.path, chunk=self.chunk, texts=self.axis == "prompt")
        return (encoder, *(segmenter_sketches(self.segmenter, self.detector) if self.segmenter else ()))

    def lacks(self, task: Task) -> str:
        return lacks_phrase(task) if self.segmenter else ""

    def build(self, name: str, device: torch.device | str) -> Reward:
        """The cosine; neither the logit scale nor the bias of SigLIP's sigmoid is applied. Range [-1, 1]."""
        encoder = Siglip2Encoder(locate(self.path, "folder"), device, self.chunk, texts=self.axis == "prompt")
        if self.axis == "prompt":
            return PromptSimilarity(encoder, "cosine of SigLIP 2 image and text embeddings, -1 to 1")
        unit = "cosine of SigLIP 2 image embeddings, -1 to 1"
        if self.segmenter:
            segmenter = find_segmenter(self.segmenter, self.detector, device)
            return DinoSeg(encoder, segmenter, several=self.several, unit=unit)
        return PictureSimilarity(encoder, unit)


class Siglip2Encoder(Encoder):
    """SigLIP 2's pooled embeddings, fp32, of pictures alone if ``texts`` is False.

    Preprocessing, as the folder says, PIL only: a fixed-resolution checkpoint squashes pictures to its square, NaFlex
    keeps the aspect ratio within its number of patches. Texts are in lower case, as the model was trained, padded on
    the right and cut at the model's length (64 tokens); no mask hides the padding.
    """

    def __init__(self, folder: Path, device: torch.device | str, chunk: int, *, texts: bool):
        from cgrpo.rewards.loading import choose, load_pretrained

        name, processor = choose(folder, MODELS, "SigLIP 2")
        self.processor = load_pretrained(processor, folder)
        self.tokenizer = load_pretrained("AutoTokenizer", folder) if texts else None
        model = load_pretrained(name, folder)
        self.length = model.config.text_config.max_position_embeddings
        if not texts:
            del model.text_model
        super().__init__(model, chunk, device)

    def prepare(self, pictures: list[Image]) -> Any:
        return self.processor(images=pictures, return_tensors="pt")

    def embed(self, pixels: Any) -> Tensor:
        return self.model.get_image_features(**pixels).pooler_output

    def read(self, texts: list[str]) -> Tensor:
        assert self.tokenizer is not None, "an encoder of pictures alone"
        tokens = self.tokenizer(
            [text.lower() for text in texts],
            padding="max_length",
            padding_side="right",
            truncation=True,
            max_length=self.length,
            return_tensors="pt",
        )
        return self.model.get_text_features(tokens["input_ids"].to(self.device)).pooler_output
