"""A tiny but complete Qwen-Image-Edit checkpoint folder with random weights, and its stock pipeline.

The stock pipeline's processor wants torchvision for films. Here it is made by hand, of the stock image processor that
works with Pillow and the stock tokenizer.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImageEditPlusPipeline,
    QwenImageTransformer2DModel,
)
from transformers import (
    AutoTokenizer,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
    Qwen2VLProcessor,
)
from transformers.processing_utils import ProcessorMixin

from support.tiny_flux import WORDS, word_tokenizer

SPECIAL = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]

MODEL_INDEX = {
    "_class_name": "QwenImageEditPlusPipeline",
    "_diffusers_version": "0.36.0",
    "processor": ["transformers", "Qwen2VLProcessor"],
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "Qwen2_5_VLForConditionalGeneration"],
    "tokenizer": ["transformers", "Qwen2Tokenizer"],
    "transformer": ["diffusers", "QwenImageTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKLQwenImage"],
}


def tiny_transformer(**changes: Any) -> QwenImageTransformer2DModel:
    """Qwen-Image's with random weights, by default with a time of their own for references, as 2511 has it."""
    sizes = {
        "in_channels": 16, "out_channels": 4, "num_layers": 2, "attention_head_dim": 16, "num_attention_heads": 2,
        "joint_attention_dim": 16, "axes_dims_rope": (4, 6, 6), "zero_cond_t": True,
    }  # fmt: skip
    return QwenImageTransformer2DModel(**sizes | changes)  # pyright: ignore


def build_folder(folder: Path, **changes: Any) -> Path:
    """A token is 16 x 16 pixels, as in the published models. ``changes`` of the transformer's configuration."""
    torch.manual_seed(0)
    tiny_transformer(**changes).save_pretrained(folder / "transformer")
    AutoencoderKLQwenImage(
        base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
        latents_mean=[-0.7, 0.1, 0.4, -0.2], latents_std=[1.8, 0.6, 2.3, 1.2],
    ).save_pretrained(folder / "vae")  # fmt: skip
    # A word has a token, a picture's many tokens are one.
    tokenizer = word_tokenizer(WORDS, 131072)
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL})
    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("image_pad", "video_pad", "vision_start")}
    qwen = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
            "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 1e4},
        },
        vision_config={
            "depth": 1, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "out_hidden_size": 16,
            "fullatt_block_indexes": [0],
        },
        image_token_id=ids["image_pad"], video_token_id=ids["video_pad"], vision_start_token_id=ids["vision_start"],
        tie_word_embeddings=False,
    )  # fmt: skip
    Qwen2_5_VLForConditionalGeneration(qwen).save_pretrained(folder / "text_encoder")
    for part in ("tokenizer", "processor"):
        tokenizer.save_pretrained(folder / part)
    # The published one has room for 384 x 384 pixels; at 112 x 112 a picture is 16 tokens.
    Qwen2VLImageProcessorPil(size={"shortest_edge": 3136, "longest_edge": 112**2}).save_pretrained(folder / "processor")
    FlowMatchEulerDiscreteScheduler(
        max_image_seq_len=8192, max_shift=0.9, shift_terminal=0.02, use_dynamic_shifting=True
    ).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps(MODEL_INDEX, indent=2))
    return folder


class PictureProcessor(Qwen2VLProcessor):
    """Qwen2VLProcessor for texts and pictures, without films."""

    def __init__(self, image_processor: Any = None, tokenizer: Any = None) -> None:
        self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        ProcessorMixin.__init__(self, image_processor, tokenizer)


def stock_pipeline(folder: Path, *, fixed: bool = True) -> Any:
    """The stock pipeline of a folder.

    ``fixed``: its text encoder is told which tokens are a picture's, which diffusers 0.42.1 forgets (its issue 14194).
    """
    tokenizer = AutoTokenizer.from_pretrained(folder / "processor")
    pictures = Qwen2VLImageProcessorPil.from_pretrained(folder / "processor")
    qwen = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    pipeline = QwenImageEditPlusPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler"),
        vae=AutoencoderKLQwenImage.from_pretrained(folder / "vae"),
        text_encoder=qwen,
        tokenizer=tokenizer,
        processor=PictureProcessor(pictures, tokenizer),  # pyright: ignore[reportArgumentType]
        transformer=QwenImageTransformer2DModel.from_pretrained(folder / "transformer"),
    )
    pipeline.set_progress_bar_config(disable=True)

    def tell(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        types = (kwargs["input_ids"] == qwen.config.image_token_id).int()
        return args, {"mm_token_type_ids": types} | kwargs

    if fixed:
        qwen.register_forward_pre_hook(tell, with_kwargs=True)
    return pipeline
