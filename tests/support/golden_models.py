"""The models behind the golden vectors, from their authors' key names to transformers folders."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    BatchEncoding,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPTokenizer,
    CLIPVisionConfig,
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
)

from cgrpo.rewards.convert import from_open_clip
from support.tiny_rewards import DATA, IMAGENET, golden

PROMPTS = tuple(json.loads((DATA / "clip.json").read_text())["prompts_for_tokens"])


def golden_tokens(texts, **_) -> BatchEncoding:
    """The golden token ids of the golden prompts, which come from a tokenizer of their own."""
    ids = load_file(DATA / "clip_io.safetensors")["tokens"].long()[[PROMPTS.index(text) for text in texts]]
    return BatchEncoding({"input_ids": ids, "attention_mask": torch.ones_like(ids)})


def pictures(*names: str) -> list[Image.Image]:
    images = load_file(DATA / "images.safetensors")
    return [Image.fromarray(images[name].numpy()) for name in names]


def build_openai_clip(folder: Path) -> Path:
    """OpenAI's CLIP, two layers of 64, 24 channels of embedding."""
    width = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2}
    text = CLIPTextConfig(
        **width, num_attention_heads=1, vocab_size=512, bos_token_id=510, eos_token_id=511, pad_token_id=0
    )
    vision = CLIPVisionConfig(**width, num_attention_heads=1, image_size=224, patch_size=32)
    model = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=24))
    model.load_state_dict(dict(from_open_clip(golden("clip_state"))))
    model.save_pretrained(folder)
    CLIPImageProcessorPil().save_pretrained(folder)
    CLIPTokenizer(vocab={"<|startoftext|>": 510, "<|endoftext|>": 511}, merges=[]).save_pretrained(folder)
    return folder


def dino_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """DINO's weights under the names of transformers' published folders."""
    made = {
        "embeddings.cls_token": state["cls_token"],
        "embeddings.position_embeddings": state["pos_embed"],
        "layernorm.weight": state["norm.weight"],
        "layernorm.bias": state["norm.bias"],
    }
    names = {"norm1": "layernorm_before", "norm2": "layernorm_after", "attn.proj": "attention.output.dense"}
    names |= {"mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense"}
    for kind in ("weight", "bias"):
        made[f"embeddings.patch_embeddings.projection.{kind}"] = state[f"patch_embed.proj.{kind}"]
        for layer in range(3):
            before, after = f"blocks.{layer}.", f"encoder.layer.{layer}."
            made |= {f"{after}{new}.{kind}": state[f"{before}{old}.{kind}"] for old, new in names.items()}
            thirds = state[f"{before}attn.qkv.{kind}"].chunk(3)
            parts = zip(("query", "key", "value"), thirds, strict=True)
            made |= {f"{after}attention.attention.{part}.{kind}": third.clone() for part, third in parts}
    return made


def build_dino_v1(folder: Path) -> Path:
    """DINO v1, three layers of 32, with the processor of the published folder, which squashes to 224."""
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=128, layer_norm_eps=1e-6
    )
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    save_file(dino_state(golden("dinov1_state")), folder / "model.safetensors", metadata={"format": "pt"})
    ViTImageProcessorPil(**IMAGENET).save_pretrained(folder)
    return folder
