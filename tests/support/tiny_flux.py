"""A tiny but complete FLUX checkpoint folder with random weights, and the reference code's golden vectors."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from safetensors import safe_open
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast, T5Config, T5EncoderModel

DATA = Path(__file__).parents[1] / "data"

# How far velocities (up to 10 in size) and trajectories lie from the golden ones on any machine. FLUX's time embedding
# takes exp() in float32 and multiplies it by up to 1000; where a library's exp differs from the reference machine's
# in the last bit, which depends on the instruction set, that is up to 1.2e-4 here. Gradients: of the largest entry.
ACROSS_MACHINES = 5e-4
# The same in float64 with the reference machine's time embedding (``GivenTime``): what is left is its own rounding.
GIVEN_TIME = 1e-5

WORDS = ["a", "red", "blue", "green", "cube", "ball", "on", "in", "the", "beach", "snow"]

MODEL_INDEX = {
    "_class_name": "FluxPipeline",
    "_diffusers_version": "0.42.0",
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "T5EncoderModel"],
    "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
    "tokenizer_2": ["transformers", "PreTrainedTokenizerFast"],
    "transformer": ["diffusers", "FluxTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def word_tokenizer(words: list[str], length: int) -> PreTrainedTokenizerFast:
    """One token per word; <pad> is 0 and </s> is 1."""
    vocabulary = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=length
    )


def tiny_transformer(**changes: Any) -> FluxTransformer2DModel:
    """FLUX's with random weights; ``changes`` of its configuration."""
    sizes = {
        "in_channels": 32, "num_layers": 1, "num_single_layers": 2, "attention_head_dim": 16, "num_attention_heads": 2,
        "joint_attention_dim": 24, "pooled_projection_dim": 20, "guidance_embeds": True, "axes_dims_rope": (4, 6, 6),
    }  # fmt: skip
    return FluxTransformer2DModel(**sizes | changes)  # pyright: ignore


def big_headed_transformer(in_channels: int = 32) -> FluxTransformer2DModel:
    """With heads of 128, from which readers of BFL's files guess the axes."""
    return tiny_transformer(
        in_channels=in_channels, num_single_layers=1, attention_head_dim=128, num_attention_heads=1,
        axes_dims_rope=(16, 56, 56),
    )  # fmt: skip


def tiny_autoencoder(channels: tuple[int, ...], **changes: Any) -> AutoencoderKL:
    """FLUX's with random weights and a level for each of ``channels``; ``changes`` of its configuration."""
    levels = len(channels)
    settings = {
        "block_out_channels": channels, "latent_channels": 8, "layers_per_block": 1,
        "down_block_types": ("DownEncoderBlock2D",) * levels, "up_block_types": ("UpDecoderBlock2D",) * levels,
        "scaling_factor": 0.3611, "shift_factor": 0.1159, "use_quant_conv": False, "use_post_quant_conv": False,
    }  # fmt: skip
    return AutoencoderKL(**settings | changes)  # pyright: ignore


def build_folder(folder: Path) -> Path:
    torch.manual_seed(0)
    tiny_transformer().save_pretrained(folder / "transformer")
    vae = tiny_autoencoder((8, 8, 16), norm_num_groups=4, scaling_factor=0.7, shift_factor=0.1)
    vae.save_pretrained(folder / "vae")
    clip = CLIPTextConfig(
        vocab_size=len(WORDS) + 3, hidden_size=20, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=10, eos_token_id=1, pad_token_id=0, bos_token_id=None,
    )  # fmt: skip
    CLIPTextModel(clip).save_pretrained(folder / "text_encoder")
    t5 = T5Config(vocab_size=len(WORDS) + 3, d_model=24, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    T5EncoderModel(t5).save_pretrained(folder / "text_encoder_2")
    word_tokenizer(WORDS, 10).save_pretrained(folder / "tokenizer")
    word_tokenizer(WORDS, 12).save_pretrained(folder / "tokenizer_2")
    FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps(MODEL_INDEX, indent=2))
    return folder


def golden(name: str) -> dict[str, torch.Tensor]:
    """Golden tensors, copied out of the mapped file: its unaligned memory alone moves results by 4.8e-6."""
    return {key: value.clone() for key, value in load_file(DATA / name).items()}


def golden_transformer() -> FluxTransformer2DModel:
    """The reference's tiny FLUX (fp32) without LoRA."""
    path = DATA / "golden_uno" / "tiny_flux_base_diffusers.safetensors"
    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["config"])
    transformer = FluxTransformer2DModel(**config)
    transformer.load_state_dict({key: value.float() for key, value in golden(f"golden_uno/{path.name}").items()})
    return transformer


class GivenTime(nn.Module):
    """The time embedding as the reference machine had it, in float64, for any machine.

    Its exp() in float32 is the correctly rounded one but for two frequencies, which are an ulp larger. Products in
    float32 are the same everywhere; the sines of float32 angles are taken in float64.
    """

    def forward(self, time_N: Tensor) -> Tensor:
        exponent_C = -math.log(10000) * torch.arange(128, dtype=torch.float32) / 128
        frequency_C = exponent_C.double().exp().float()
        frequency_C[[12, 106]] = frequency_C[[12, 106]].nextafter(torch.ones(2))
        angle_NC = (time_N.float()[:, None] * frequency_C).double()
        return torch.cat((angle_NC.cos(), angle_NC.sin()), dim=-1)
