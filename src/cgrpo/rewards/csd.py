"""CSD: similarity of style, by Contrastive Style Descriptors (Somepalli et al. 2024, arXiv 2404.01292)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from cgrpo.hub import Wanted, locate
from cgrpo.rewards.base import Reward
from cgrpo.rewards.settings import ModelSettings
from cgrpo.rewards.similarity import Encoder, PictureSimilarity
from cgrpo.rewards.sketch import ModelSketch, stock_model
from cgrpo.section import Place

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor

HEAD_WIDTH = 64  # channels of an attention head in OpenAI's vision transformers
UNUSED = "last_layer_content"


class CsdSettings(ModelSettings):
    """Identity: similarity of style between picture and references, by CSD ViT-L/14."""

    type: Literal["csd"] = "csd"
    path: Place
    """CSD's weights as safetensors: `cgrpo rewards convert` makes them once from the published pickle."""
    conversions: ClassVar = {"csd": ""}

    def checkpoints(self) -> Mapping[str, Wanted]:
        return {"path": "file"}

    def models(self) -> tuple[ModelSketch, ...]:
        layout = stock_model("openai/clip-vit-large-patch14", chunk=self.chunk, texts=False)
        return (replace(layout, name=self.path),)

    def build(self, name: str, device: torch.device | str) -> Reward:
        """The cosine of style descriptors, its mean over references. Range [-1, 1]."""
        encoder = CsdEncoder(locate(self.path, "file"), device, self.chunk)
        return PictureSimilarity(encoder, "cosine of CSD style descriptors, -1 to 1")

    @classmethod
    def convert(cls, form: str, file: Path, out: Path, reference: str) -> Path:
        """The published weights (checkpoint.pth, or pytorch_model.bin of tomg-group-umd/CSD-ViT-L) as safetensors."""
        from cgrpo.rewards.convert import read_pickled, write_weights

        state = {key.removeprefix("module."): value for key, value in read_pickled(file).items()}
        _load(state, file)
        return write_weights(state, out)


class CsdEncoder(Encoder):
    """CSD's style descriptors, fp32: CLIP ViT-L/14's class token after the last norm, projected by the style head.

    Preprocessing, as published: short side 224 bicubic (PIL), centre crop, CLIP statistics.
    """

    def __init__(self, weights: Path, device: torch.device | str, chunk: int):
        from cgrpo.rewards.loading import load_weights

        state = load_weights(weights, "`cgrpo rewards convert` makes it of CSD's pickle")
        super().__init__(_load(state, weights), chunk, device)
        self.side = self.model.config.image_size

    def prepare(self, pictures: list[Image]) -> Tensor:
        from cgrpo.rewards.pixels import CLIP, as_floats, centre_crop, normalised

        return normalised(as_floats([centre_crop(picture, self.side, self.side) for picture in pictures]), CLIP)

    def embed(self, pixels: Tensor) -> Tensor:
        return self.model(pixels).image_embeds


def _load(state: Mapping[str, Tensor], where: Path) -> Any:
    """The style network, a CLIP vision model whose projection is the style head. Its sizes are those of the weights.

    The file has OpenAI's names below "backbone." and two heads [C, D] side by side. Raises UserError.
    """
    import torch
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    from cgrpo.errors import UserError
    from cgrpo.rewards.convert import from_open_clip
    from cgrpo.rewards.loading import fill

    names = {key.replace("backbone.", "visual.", 1): value for key, value in state.items() if key != UNUSED}
    try:
        names["visual.proj"] = names.pop("last_layer_style")
        width, _, patch, _ = names["visual.conv1.weight"].shape
        places = len(names["visual.positional_embedding"])
        inner = len(names["visual.transformer.resblocks.0.mlp.c_fc.weight"])
        layers = sum(key.endswith("attn.in_proj_weight") for key in names)
        config = CLIPVisionConfig(
            hidden_size=width,
            intermediate_size=inner,
            projection_dim=names["visual.proj"].shape[1],
            num_hidden_layers=layers,
            num_attention_heads=width // HEAD_WIDTH,
            image_size=round((places - 1) ** 0.5) * patch,
            patch_size=patch,
        )
    except (KeyError, ValueError, IndexError) as error:
        raise UserError(f"{where}: these are not CSD's weights ({error})", "give CSD's ViT-L checkpoint") from error
    with torch.device("meta"):
        model = CLIPVisionModelWithProjection(config)
    fill(model, dict(from_open_clip(names)), where, "CSD")
    model.vision_model.embeddings.register_buffer("position_ids", torch.arange(places)[None], persistent=False)
    return model
