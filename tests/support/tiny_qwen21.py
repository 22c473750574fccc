"""A tiny but complete Qwen-Image-2.1 checkpoint folder with random weights, and its stock pipeline.

As for tiny_qwen.py the stock processor is made by hand, without torchvision.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKLQwenImage21,
    FlowMatchEulerDiscreteScheduler,
    QwenImage21Pipeline,
    QwenImage21Transformer2DModel,
)
from PIL import Image
from torch import Tensor
from transformers import (
    AutoTokenizer,
    Qwen2VLImageProcessorPil,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
)
from transformers.processing_utils import ProcessorMixin

from support.tiny_flux import WORDS, word_tokenizer
from support.tiny_qwen import SPECIAL

MODEL_INDEX = {
    "_class_name": "QwenImage21Pipeline",
    "_diffusers_version": "0.42.0",
    "processor": ["transformers", "Qwen3VLProcessor"],
    "sample_sigmas": None,
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "Qwen3VLForConditionalGeneration"],
    "transformer": ["diffusers", "QwenImage21Transformer2DModel"],
    "vae": ["diffusers", "AutoencoderKLQwenImage21"],
}
SYSTEM_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% for part in m.content %}{{ part.text }}{% endfor %}<|im_end|>\n{% endfor %}"
)


def tiny_transformer(**changes: Any) -> QwenImage21Transformer2DModel:
    """Qwen-Image-2.1's with random weights."""
    sizes = {
        "in_channels": 4, "out_channels": 4, "num_layers": 2, "attention_head_dim": 16, "num_attention_heads": 2,
        "context_in_dim": 16, "axes_dims_rope": (4, 6, 6),
    }  # fmt: skip
    return QwenImage21Transformer2DModel(**sizes | changes)


def build_folder(folder: Path, **changes: Any) -> Path:
    """A token is 16 x 16 pixels, as in the published model. ``changes`` of the transformer's configuration."""
    torch.manual_seed(0)
    tiny_transformer(**changes).save_pretrained(folder / "transformer")
    AutoencoderKLQwenImage21(
        base_dim=4, decoder_base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1, 1], num_res_blocks=1,
        latents_mean=[-0.7, 0.1, 0.4, -0.2], latents_std=[1.8, 0.6, 2.3, 1.2],
    ).save_pretrained(folder / "vae")  # fmt: skip
    tokenizer = word_tokenizer(WORDS, 131072)
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL})
    tokenizer.chat_template = SYSTEM_TEMPLATE
    ids: dict[str, Any] = {
        name: tokenizer.convert_tokens_to_ids(f"<|{name}|>")
        for name in ("image_pad", "video_pad", "vision_start", "vision_end")
    }
    qwen = Qwen3VLConfig(
        text_config={
            "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "head_dim": 8,
            "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 1e4},
        },
        vision_config={
            "depth": 1, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "out_hidden_size": 16,
            "num_position_embeddings": 16, "deepstack_visual_indexes": [0],
        },
        image_token_id=ids["image_pad"], video_token_id=ids["video_pad"],
        vision_start_token_id=ids["vision_start"], vision_end_token_id=ids["vision_end"], tie_word_embeddings=False,
    )  # fmt: skip
    Qwen3VLForConditionalGeneration(qwen).save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "processor")
    # The published one has room for 256 x 256 pixels and more.
    Qwen2VLImageProcessorPil(
        patch_size=16, size={"shortest_edge": 1024, "longest_edge": 2**20}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    ).save_pretrained(folder / "processor")
    FlowMatchEulerDiscreteScheduler(
        max_image_seq_len=8192, max_shift=0.9, shift_terminal=0.02, use_dynamic_shifting=True
    ).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps(MODEL_INDEX, indent=2))
    return folder


class PictureProcessor(Qwen3VLProcessor):
    """Qwen3VLProcessor for texts and pictures, without films."""

    def __init__(self, image_processor: Any = None, tokenizer: Any = None) -> None:
        self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=tokenizer.chat_template)


def stock_pipeline(folder: Path) -> Any:
    """The stock pipeline of a folder."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "processor")
    pictures = Qwen2VLImageProcessorPil.from_pretrained(folder / "processor")
    scheduler: Any = FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler")
    pipeline = QwenImage21Pipeline(
        scheduler=scheduler,
        vae=AutoencoderKLQwenImage21.from_pretrained(folder / "vae"),
        text_encoder=Qwen3VLForConditionalGeneration.from_pretrained(folder / "text_encoder", dtype=torch.float32),
        processor=PictureProcessor(pictures, tokenizer),
        transformer=QwenImage21Transformer2DModel.from_pretrained(folder / "transformer"),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def on_white(picture: Image.Image) -> Tensor:
    """The stock pipeline's picture, which knows transparency, as [H, W, 3]."""
    assert picture.mode == "RGBA"
    white = Image.new("RGB", picture.size, "white")
    white.paste(picture, mask=picture.getchannel("A"))
    return torch.from_numpy(np.array(white))
