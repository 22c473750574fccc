"""ImageReward: human preference by BLIP, which reads the prompt while it looks at the picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoTokenizer, BlipConfig, BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

from cgrpo.errors import UserError
from cgrpo.rewards.aesthetic import make_head
from cgrpo.rewards.base import Axis, Reward, to_pictures
from cgrpo.rewards.loading import check_fit, choose, load_pretrained
from cgrpo.rewards.pixels import CLIP, as_floats, centre_crop, normalised
from cgrpo.types import Batch

LENGTH = 35  # tokens of a prompt
MEAN, DEVIATION = 0.16717362830052426, 1.0333394966054072  # of the raw score, as published
FILE = "model.safetensors"


class ImageReward(Reward):
    """ImageReward v1.0: a preference score, standardised. About -2 to 2, 0 for an average picture; unbounded.

    Model: BLIP, fp32: a ViT-L/16 on 224 x 224 pixels; BERT-base, reading the prompt, attends to all its tokens in every
    layer; five linear layers without activations on the [CLS] token; less the published mean, over the published
    deviation. Preprocessing, as published: short side 224 bicubic, centre crop, CLIP statistics (PIL). Prompts: raw,
    BERT's lower-case tokens, cut at 35.

    ``folder``: what convert.convert_image_reward makes once of the published ImageReward.pt. The prompt goes through
    the network with every picture: nothing of it can be kept.
    """

    axis: Axis = "prompt"
    unit = "ImageReward, standardised: 0 is an average picture, about -2 to 2"

    def __init__(self, folder: Path, *, device: torch.device | str = "cpu", chunk: int = 16):
        config = load_pretrained(choose(folder, {"blip": BlipConfig}, "ImageReward checkpoint"), folder)
        self.tokenizer = load_pretrained(AutoTokenizer, folder)
        self.side, self.chunk = config.vision_config.image_size, chunk
        self.model = _load(folder, config)
        self.to(device)

    def to(self, device: torch.device | str) -> None:
        self.device = device
        self.model.to(device)

    @torch.no_grad()
    def score(self, pixels: Tensor, ids_NL: Tensor, mask_NL: Tensor) -> Tensor:
        """[N], from prepared inputs."""
        seen_NLC = self.model["vision_model"](pixels.to(self.device)).last_hidden_state
        read_NLC = self.model["text_model"](
            ids_NL.to(self.device), attention_mask=mask_NL.to(self.device), encoder_hidden_states=seen_NLC
        ).last_hidden_state
        return ((self.model["head"](read_NLC[:, 0])[:, 0] - MEAN) / DEVIATION).cpu()

    def __call__(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        rows = []
        for first in range(0, len(images_NHWC), self.chunk):
            part = slice(first, first + self.chunk)
            pictures = [centre_crop(picture, self.side, self.side) for picture in to_pictures(images_NHWC[part])]
            tokens = self.tokenizer(
                list(batch.prompts[part]), padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt"
            )
            pixels = normalised(as_floats(pictures), CLIP)
            rows.append(self.score(pixels, tokens["input_ids"], tokens["attention_mask"]))
        return torch.cat(rows)


def make_parts(config: BlipConfig) -> nn.ModuleDict:
    """The networks on the meta device, under the names that their weights have in a converted folder."""
    text, vision = config.text_config, config.vision_config
    assert isinstance(text, BlipTextConfig) and isinstance(vision, BlipVisionConfig)
    with torch.device("meta"):
        eye, reader = BlipVisionModel(vision), BlipTextModel(text, add_pooling_layer=False)
    return nn.ModuleDict({"vision_model": eye, "text_model": reader, "head": make_head("v2", text.hidden_size)})


def check_parts(where: Path, parts: nn.ModuleDict, state: dict[str, Tensor]) -> None:
    """Raise UserError unless ``state`` is exactly those networks'."""
    needed = {key: value.shape for key, value in parts.state_dict().items()}
    mismatched = [
        f"{key} {list(value.shape)}, not {list(needed[key])}"
        for key, value in state.items()
        if key in needed and value.shape != needed[key]
    ]
    check_fit(where, "ImageReward", needed.keys() - state.keys(), state.keys() - needed.keys(), mismatched)


def _load(folder: Path, config: BlipConfig) -> nn.ModuleDict:
    try:
        state = {key: value.float() for key, value in load_file(folder / FILE).items()}
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"ImageReward checkpoint {folder}: {FILE} can't be read ({' '.join(str(error).split())[:200]}); give the "
            "folder that `cgrpo rewards convert` makes of ImageReward.pt"
        ) from error
    parts = make_parts(config)
    check_parts(folder, parts, state)
    parts.load_state_dict(state, assign=True)
    embeddings: Any = parts["text_model"].embeddings
    embeddings.position_ids = torch.arange(len(embeddings.position_embeddings.weight))[None]  # not in the checkpoint
    return parts.eval().requires_grad_(False)
