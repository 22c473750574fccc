"""ImageReward: human preference by BLIP, which reads the prompt while it looks at the picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from cgrpo.hub import locate, read_settings
from cgrpo.rewards.aesthetic import make_head
from cgrpo.rewards.base import Axis, Reward, to_pictures
from cgrpo.rewards.settings import ModelSettings
from cgrpo.rewards.sketch import ModelSketch, blank_pixels, blank_words
from cgrpo.section import Place, Positive
from cgrpo.types import Batch

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import BlipConfig

LENGTH = 35  # tokens of a prompt
MEAN, DEVIATION = 0.16717362830052426, 1.0333394966054072  # of the raw score, as published
FILE = "model.safetensors"
BLIP_RENAMED = {  # beginnings of names; what stands behind them stays
    "mlp.layers.": "head.",
    "blip.text_encoder.": "text_model.",
    "blip.visual_encoder.cls_token": "vision_model.embeddings.class_embedding",
    "blip.visual_encoder.pos_embed": "vision_model.embeddings.position_embedding",
    "blip.visual_encoder.patch_embed.proj.": "vision_model.embeddings.patch_embedding.",
    "blip.visual_encoder.norm.": "vision_model.post_layernorm.",
    "blip.visual_encoder.blocks.": "vision_model.encoder.layers.",
}
BLIP_IN_LAYER = {
    ".attn.qkv.": ".self_attn.qkv.",
    ".attn.proj.": ".self_attn.projection.",
    ".norm1.": ".layer_norm1.",
    ".norm2.": ".layer_norm2.",
}
BLIP_UNUSED = ("blip.vision_proj.", "blip.text_proj.", "blip.text_encoder.embeddings.position_ids")


class ImageRewardSettings(ModelSettings):
    """Prompt: ImageReward's human preference score."""

    type: Literal["image-reward"] = "image-reward"
    path: Place
    """Folder that `cgrpo rewards convert` makes once from ImageReward.pt."""
    chunk: Positive = 16
    """Pictures per forward."""
    conversions: ClassVar = {"image-reward": "google-bert/bert-base-uncased"}

    def build(self, name: str, device: torch.device | str) -> ImageReward:
        return ImageReward(locate(self.path, "folder"), device, self.chunk)

    def models(self) -> tuple[ModelSketch, ...]:
        config = read_settings(self.path)
        if config is None:
            return super().models()

        def build() -> nn.Module:
            from transformers import BlipConfig

            return make_parts(BlipConfig.from_dict(config))

        def run(model: Any, count: int) -> None:
            seen_NLC = model["vision_model"](
                blank_pixels(count, model["vision_model"].config.image_size)
            ).last_hidden_state
            read_NLC = model["text_model"](
                **blank_words(count, LENGTH), encoder_hidden_states=seen_NLC
            ).last_hidden_state
            model["head"](read_NLC[:, 0])

        return (ModelSketch(self.path, build, run, self.chunk),)

    @classmethod
    def convert(cls, form: str, file: Path, out: Path, reference: str) -> Path:
        return convert_image_reward(file, out, locate(reference, "settings"))


class ImageReward(Reward):
    """ImageReward v1.0: a preference score, standardised. About -2 to 2, 0 for an average picture; unbounded.

    Model: BLIP, fp32: a ViT-L/16 on 224 x 224 pixels; BERT-base, reading the prompt, attends to all its tokens in every
    layer; five linear layers without activations on the [CLS] token; less the published mean, over the published
    deviation. Preprocessing, as published: short side 224 bicubic, centre crop, CLIP statistics (PIL). Prompts: raw,
    BERT's lower-case tokens, cut at 35. The prompt goes through the network with every picture: nothing of it can be
    kept.
    """

    axis: Axis = "prompt"
    unit = "ImageReward, standardised: 0 is an average picture, about -2 to 2"

    def __init__(self, folder: Path, device: torch.device | str = "cpu", chunk: int = 16):
        from cgrpo.rewards.loading import choose, load_pretrained

        config = load_pretrained(choose(folder, {"blip": "BlipConfig"}, "ImageReward"), folder)
        self.tokenizer = load_pretrained("AutoTokenizer", folder)
        self.side, self.chunk = config.vision_config.image_size, chunk
        self.model = _load(folder, config)
        self.to(device)

    def to(self, device: torch.device | str) -> None:
        self.device = device
        self.model.to(device)

    def forward(self, pixels_NCHW: Tensor, ids_NL: Tensor, mask_NL: Tensor) -> Tensor:
        """[N], from prepared inputs."""
        import torch

        with torch.no_grad():
            seen_NLC = self.model["vision_model"](pixels_NCHW.to(self.device)).last_hidden_state
            read_NLC = self.model["text_model"](
                ids_NL.to(self.device), attention_mask=mask_NL.to(self.device), encoder_hidden_states=seen_NLC
            ).last_hidden_state
            return ((self.model["head"](read_NLC[:, 0])[:, 0] - MEAN) / DEVIATION).cpu()

    def score(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        import torch

        from cgrpo.rewards.pixels import CLIP, as_floats, centre_crop, normalised

        rows = []
        for first in range(0, len(images_NHWC), self.chunk):
            part = slice(first, first + self.chunk)
            pictures = [centre_crop(picture, self.side, self.side) for picture in to_pictures(images_NHWC[part])]
            tokens = self.tokenizer(
                list(batch.prompts[part]), padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt"
            )
            pixels_NCHW = normalised(as_floats(pictures), CLIP)
            rows.append(self.forward(pixels_NCHW, tokens["input_ids"], tokens["attention_mask"]))
        return torch.cat(rows)


def make_parts(config: BlipConfig) -> nn.ModuleDict:
    """The networks on the meta device, under the names that their weights have in a converted folder."""
    import torch
    from torch import nn
    from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

    text, vision = config.text_config, config.vision_config
    assert isinstance(text, BlipTextConfig) and isinstance(vision, BlipVisionConfig)
    with torch.device("meta"):
        eye, reader = BlipVisionModel(vision), BlipTextModel(text, add_pooling_layer=False)
    return nn.ModuleDict({"vision_model": eye, "text_model": reader, "head": make_head("v2", text.hidden_size)})


def _load(folder: Path, config: BlipConfig) -> nn.ModuleDict:
    import torch

    from cgrpo.rewards.loading import fill, load_weights

    cure = "give the folder that `cgrpo rewards convert` makes of ImageReward.pt"
    parts = make_parts(config)
    fill(parts, load_weights(folder / FILE, cure), folder, "ImageReward")
    embeddings: Any = parts["text_model"].embeddings
    embeddings.position_ids = torch.arange(len(embeddings.position_embeddings.weight))[None]  # not in the checkpoint
    return parts


def published_blip() -> BlipConfig:
    """ImageReward's networks: BLIP's ViT-L/16 at 224 pixels and BERT-base."""
    from transformers import BlipConfig

    text = {"hidden_size": 768, "encoder_hidden_size": 1024, "num_hidden_layers": 12, "num_attention_heads": 12}
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    vision |= {"image_size": 224, "patch_size": 16, "layer_norm_eps": 1e-6}
    return BlipConfig(text_config=text, vision_config=vision)


def convert_image_reward(pt: Path, out: Path, reference: Path, config: BlipConfig | None = None) -> Path:
    """The published ImageReward.pt (``pt``) as the folder ``out``, which ImageReward loads.

    ``reference``: a transformers folder with bert-base-uncased's tokenizer. ``config``: of networks unlike the
    published ones. BLIP's projections for retrieval, which the score does not use, are left out.
    Raises UserError if the checkpoint does not fit to the last weight, or ``out`` is in use.
    """
    from cgrpo.rewards.convert import read_pickled, refuse_used, write_weights
    from cgrpo.rewards.loading import check_fit, load_pretrained, shapes

    config = published_blip() if config is None else config
    tokenizer = load_pretrained("AutoTokenizer", reference)
    refuse_used(out)
    state = {_from_blip(key): value for key, value in read_pickled(pt).items() if not key.startswith(BLIP_UNUSED)}
    check_fit(pt, "ImageReward", shapes(make_parts(config).state_dict()), shapes(state))
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(out)
    config.save_pretrained(out)
    write_weights(state, out / FILE)
    return out


def _from_blip(key: str) -> str:
    """The name in ImageReward's networks as transformers holds them; an unknown one stays."""
    for old, new in BLIP_RENAMED.items():
        if key.startswith(old):
            key = new + key.removeprefix(old)
            break
    if key.startswith("vision_model."):
        for old, new in BLIP_IN_LAYER.items():
            key = key.replace(old, new)
    return key
