"""A reward's models without their weights: built from configurations alone on the meta device, to be counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgrpo.hub import asset, read_settings
from cgrpo.section import TOYBOX_WORLDS

if TYPE_CHECKING:
    from torch import Tensor, nn

WORDS = 6  # tokens of the phrase that a detector looks for


@dataclass(frozen=True)
class ModelSketch:
    """A model of a reward.

    build   the model on the meta device; None where it is not known what the reward loads
    run     the model's work for so many generated pictures; None where none of them goes through it
    chunk   pictures per forward
    """

    name: str
    build: Callable[[], nn.Module] | None = None
    run: Callable[[Any, int], object] | None = None
    chunk: int = 1


def blank_pixels(count: int, side: int) -> Tensor:
    """Prepared pictures [N, 3, side, side]."""
    import torch

    return torch.empty(count, 3, side, side)


def blank_words(count: int, length: int = WORDS) -> dict[str, Tensor]:
    """Token ids and attention mask [N, length] by the names that models take them by."""
    import torch

    ids_NL = torch.zeros(count, length, dtype=torch.long)
    return {"input_ids": ids_NL, "attention_mask": torch.ones_like(ids_NL)}


def _whole(model: Any, count: int, side: int) -> object:
    return model(blank_pixels(count, side))


def _clip(model: Any, count: int, side: int) -> object:
    return model.get_image_features(blank_pixels(count, side))


def _sam(model: Any, count: int, side: int) -> object:
    import torch

    boxes_N14 = torch.zeros(count, 1, 4)
    return model(pixel_values=blank_pixels(count, side), input_boxes=boxes_N14, multimask_output=False)


def _worded(model: Any, count: int, side: int) -> object:
    return model(pixel_values=blank_pixels(count, side), **blank_words(count))


_STOCK: dict[str, tuple[str, Callable[[Any, int, int], object]]] = {  # model type -> transformers' class, its forward
    "clip": ("CLIPModel", _clip),
    "dinov2": ("Dinov2Model", _whole),
    "dinov2_with_registers": ("Dinov2WithRegistersModel", _whole),
    "dinov3_vit": ("DINOv3ViTModel", _whole),
    "siglip": ("SiglipModel", _clip),
    "vit": ("ViTModel", _whole),
    "segformer": ("SegformerForSemanticSegmentation", _whole),
    "sam": ("SamModel", _sam),
    "sam3": ("Sam3Model", _worded),
    "sam3_video": ("Sam3Model", _worded),
    "grounding-dino": ("GroundingDinoForObjectDetection", _worded),
    "mm-grounding-dino": ("MMGroundingDinoForObjectDetection", _worded),
}


def stock_model(path: str, own: str = "clip", *, chunk: int, runs: bool = True, texts: bool = True) -> ModelSketch:
    """A transformers model by the configuration that ``path`` names; "toybox" is the package's ``own``.

    ``runs``: whether generated pictures go through it. ``texts``: whether CLIP keeps the half that reads.
    Raises UserError for a folder whose configuration can't be read.
    """
    place, title = (asset(own, path), f"{path} {own}") if path in TOYBOX_WORLDS else (path, path)
    config = read_settings(place)
    if config is None or config.get("model_type") not in _STOCK:
        return ModelSketch(title)
    name, forward = _STOCK[config["model_type"]]
    side = _side(place, config)

    def build() -> nn.Module:
        import torch
        import transformers

        kind = getattr(transformers, name)
        given = {"add_pooling_layer": False} if name == "ViTModel" else {}
        with torch.device("meta"):
            model = kind(kind.config_class.from_dict(config.get("detector_config", config)), **given)
        for half in () if texts else ("text_model", "text_projection"):
            if hasattr(model, half):
                delattr(model, half)
        return model

    return ModelSketch(title, build, (lambda model, count: forward(model, count, side)) if runs else None, chunk)


def _side(place: str | Path, config: dict[str, Any]) -> int:
    """Pixels along a side of the square that the preprocessor makes of a square picture."""
    file = "preprocessor_config.json"
    there = not Path(place).is_dir() or (Path(place) / file).is_file()
    table = (read_settings(place, file) if there else None) or {}
    for size in (table.get("crop_size"), table.get("size")):
        side = size.get("height", size.get("shortest_edge")) if isinstance(size, dict) else size
        if isinstance(side, int):
            return side
    return int((config.get("vision_config") or config).get("image_size", 1024))
