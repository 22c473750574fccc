"""HPSv3, the paper's prompt reward: human preference by Qwen2-VL-7B with a ranking head."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor, nn
from transformers import Qwen2VLConfig, Qwen2VLImageProcessorPil, Qwen2VLModel
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLRotaryEmbedding, Qwen2VLVisionRotaryEmbedding

from cgrpo.errors import UserError
from cgrpo.rewards.base import Axis, Reward, to_pictures
from cgrpo.rewards.hpsv3 import PROMPT, REWARD_TOKEN, read_template
from cgrpo.rewards.loading import check_fit, choose, load_pretrained, reading_weights, shapes
from cgrpo.types import Batch
from cgrpo.weights import refuse_not_finite

Rotary = Literal["reference", "fp32"]
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
PIXELS = 448 * 448  # 256 image tokens for a square picture
NARROWEST = 200  # long to short side; Qwen2-VL's processor takes no narrower picture
RENAMED = {"visual.": "visual.", "model.": "language_model."}  # the checkpoint's prefixes -> Qwen2VLModel's
UNUSED = "lm_head."
HEAD = "rm_head."
IMAGE = "<|image_pad|>"
CHAT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n<|vision_start|>{images}<|vision_end|>{user}<|im_end|>\n"
    "<|im_start|>assistant\n"
)


class HPSv3(Reward):
    """The mean mu of HPSv3's preference score for a picture and its prompt. Unbounded; UNO scores about 8.

    Model: Qwen2-VL (7B) without its language head, then a three-layer head on the last hidden state of the one
    "<|Reward|>" token, giving (mu, log sigma). The body runs in ``dtype`` (bfloat16 as trained), the head in fp32.
    Input: the picture, PIL bicubic to about 448 x 448 (sides multiples of 28), CLIP statistics; the checkpoint's own
    prompt template around the full prompt. A picture narrower than 1 : 200 has no score (NaN).

    Two things are as the checkpoint was trained, not as Qwen2-VL is usually run: all three axes of the positions
    count tokens one by one (no M-RoPE), and the rotary tables are rounded to bfloat16 (``rotary`` "reference";
    "fp32" keeps them exact).

    ``weights``: HPSv3.safetensors. ``backbone``: a folder with Qwen2-VL-7B-Instruct's config.json and tokenizer.
    ``template``: see ``read_template``. ``chunk`` pictures share a forward.
    """

    axis: Axis = "prompt"
    unit = "HPSv3's mean preference score mu, unbounded"

    def __init__(
        self,
        weights: Path,
        backbone: Path,
        *,
        template: Path | None = None,
        device: torch.device | str = "cpu",
        dtype: Literal["bfloat16", "float32"] = "bfloat16",
        rotary: Rotary = "reference",
        chunk: int = 4,
    ):
        self.template = read_template(template)
        self.tokenizer = load_pretrained("AutoTokenizer", backbone)
        self.tokenizer.padding_side = "right"
        self.tokenizer.add_tokens([REWARD_TOKEN], special_tokens=True)
        self.reward_id = self.tokenizer.convert_tokens_to_ids(REWARD_TOKEN)
        self.processor = Qwen2VLImageProcessorPil(size={"shortest_edge": PIXELS, "longest_edge": PIXELS})
        config = load_pretrained(choose(backbone, {"qwen2_vl": "Qwen2VLConfig"}, "HPSv3's backbone"), backbone)
        config.get_text_config().vocab_size = len(self.tokenizer)  # the embedding was cut to the tokenizer
        self.body, self.head = _load(Path(weights), config, DTYPES[dtype], rotary, device)
        self.chunk = chunk
        self.to(device)

    def to(self, device: torch.device | str) -> None:
        self.device = device
        self.body.to(device)  # pyright: ignore[reportArgumentType] (its decorated signature)
        self.head.to(device)

    def tokens(self, prompts: list[str], grids_N3: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids and mask [N, L], padded on the right, for pictures of ``grids_N3`` (frames, rows, columns)."""
        texts = []
        for prompt, grid in zip(prompts, grids_N3, strict=True):
            taken = [token for token in self.tokenizer.get_added_vocab() if token in prompt]
            if taken:
                raise UserError(f"HPSv3: the prompt {prompt[:60]!r} holds the model's own token {taken[0]}; remove it")
            images = IMAGE * (int(grid.prod()) // self.processor.merge_size**2)
            texts.append(CHAT.format(images=images, user=self.template.replace(PROMPT, prompt)))
        batch = self.tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=False)
        return batch["input_ids"], batch["attention_mask"]

    @torch.no_grad()
    def logits(self, ids_NL: Tensor, mask_NL: Tensor, pixels: Tensor, grids_N3: Tensor) -> Tensor:
        """(mu, log sigma) [N, 2], fp32, from prepared inputs; each row holds the reward token once."""
        count, length = ids_NL.shape
        hidden_NLC = self.body(
            input_ids=ids_NL.to(self.device),
            attention_mask=mask_NL.to(self.device),
            position_ids=torch.arange(length, device=self.device).expand(3, count, length),
            pixel_values=pixels.to(self.device, self.body.dtype),
            image_grid_thw=grids_N3.to(self.device),
            use_cache=False,
        ).last_hidden_state
        where_N = (ids_NL == self.reward_id).int().argmax(1).to(self.device)
        return self.head(hidden_NLC[torch.arange(count, device=self.device), where_N].float()).cpu()

    def preferences(self, pictures: list[Image.Image], prompts: list[str]) -> Tensor:
        """(mu, log sigma) [N, 2] of each picture with its prompt."""
        rows = []
        for first in range(0, len(pictures), self.chunk):
            part = [picture.convert("RGB") for picture in pictures[first : first + self.chunk]]
            inputs = self.processor(images=part, return_tensors="pt")
            ids_NL, mask_NL = self.tokens(prompts[first : first + self.chunk], inputs["image_grid_thw"])
            rows.append(self.logits(ids_NL, mask_NL, inputs["pixel_values"], inputs["image_grid_thw"]))
        return torch.cat(rows)

    def score(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        # Pictures of different prompts never share a forward: in bfloat16 it shows what else is in a batch, and a
        # group's scores must not depend on which groups its process happens to hold.
        if max(images_NHWC.shape[1:3]) > NARROWEST * min(images_NHWC.shape[1:3]):
            return torch.full((len(images_NHWC),), torch.nan)
        pictures, prompts = to_pictures(images_NHWC), list(batch.prompts)
        groups = [list(rows) for _, rows in groupby(range(len(prompts)), prompts.__getitem__)]
        return torch.cat(
            [self.preferences([pictures[n] for n in rows], [prompts[n] for n in rows])[:, 0] for rows in groups]
        )


class RoundedVisionRotary(Qwen2VLVisionRotaryEmbedding):
    """The picture's rotary table with angles, cosines and sines in bfloat16, as in a module cast to bfloat16."""

    @torch.no_grad()
    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        angles = position_ids[..., None].to(torch.bfloat16) * self.inv_freq.to(x.device, torch.bfloat16)
        return self.recomposition_frequencies(angles.cos()), self.recomposition_frequencies(angles.sin())


def make_head(width: int) -> nn.Sequential:
    """HPSv3's "ranknet" head; the dropout only keeps the numbering of the layers."""
    return nn.Sequential(
        nn.Linear(width, 1024), nn.ReLU(), nn.Dropout(0.05), nn.Linear(1024, 16), nn.ReLU(), nn.Linear(16, 2)
    )


def _load(
    path: Path, config: Qwen2VLConfig, dtype: torch.dtype, rotary: Rotary, device: torch.device | str
) -> tuple[Qwen2VLModel, nn.Sequential]:
    """Body and head with the weights of ``path``, read one by one straight to ``device``."""
    with torch.device("meta"):
        body, head = Qwen2VLModel(config), make_head(config.get_text_config().hidden_size)
    needed = body.state_dict() | {HEAD + key: value for key, value in head.state_dict().items()}
    with reading_weights(path, "give HPSv3.safetensors"), safe_open(path, framework="pt", device=str(device)) as file:
        names = {_renamed(key): key for key in file.keys() if not key.startswith(UNUSED)}  # noqa: SIM118
        check_fit(path, "HPSv3", shapes(needed), {name: file.get_slice(k).get_shape() for name, k in names.items()})
        state = {
            name: file.get_tensor(key).to(torch.float32 if name.startswith(HEAD) else dtype)
            for name, key in names.items()
        }
    refuse_not_finite(path, state)
    head.load_state_dict({k.removeprefix(HEAD): v for k, v in state.items() if k.startswith(HEAD)}, assign=True)
    body.load_state_dict({k: v for k, v in state.items() if not k.startswith(HEAD)}, assign=True)
    _set_rotary(body, config, rotary)
    return body.eval().requires_grad_(False), head.eval().requires_grad_(False)


def _renamed(key: str) -> str:
    for old, new in RENAMED.items():
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key


def _set_rotary(body: Qwen2VLModel, config: Qwen2VLConfig, rotary: Rotary) -> None:
    """The rotary tables are no part of the checkpoint: computed in fp32, then rounded as training rounded them."""
    text = Qwen2VLRotaryEmbedding(config.text_config)  # pyright: ignore[reportArgumentType]
    if rotary == "reference":
        text.inv_freq.copy_(text.inv_freq.to(torch.bfloat16))
    body.language_model.rotary_emb = text
    vision = RoundedVisionRotary if rotary == "reference" else Qwen2VLVisionRotaryEmbedding
    body.visual.rotary_pos_emb = vision(config.vision_config)  # pyright: ignore[reportArgumentType]


BLANK_TOKENS, BLANK_PATCHES = 900, 1024  # per picture: of prompt and picture together; of 448 x 448 pixels


def empty_parts(table: dict[str, Any], dtype: str) -> nn.ModuleDict:
    """Body and head on the meta device, from the backbone's configuration."""
    config = Qwen2VLConfig.from_dict(table)
    with torch.device("meta"):
        body, head = Qwen2VLModel(config), make_head(config.get_text_config().hidden_size)
    for parameter in body.parameters():
        parameter.data = parameter.data.to(DTYPES[dtype])
    return nn.ModuleDict({"body": body, "head": head})


def run_blank(model: Any, count: int) -> None:
    """A forward of so many blank pictures, for whoever counts it.

    The picture's half goes block by block: its own forward reads values, which tensors that are counted have not.
    """
    body, vision = model["body"], model["body"].config.vision_config
    seen_LC = torch.empty(count * BLANK_PATCHES, vision.embed_dim, dtype=body.dtype)
    ends = BLANK_PATCHES * np.arange(count + 1)
    angles = (torch.empty(len(seen_LC), vision.embed_dim // vision.num_heads),) * 2
    for block in body.visual.blocks:
        seen_LC = block(seen_LC, cu_seqlens=ends, position_embeddings=angles)
    body.visual.merger(seen_LC)
    width = body.config.get_text_config().hidden_size
    body.language_model(inputs_embeds=torch.empty(count, BLANK_TOKENS, width, dtype=body.dtype), use_cache=False)
