"""A tiny but complete FLUX.2-klein checkpoint folder with random weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKLFlux2, FlowMatchEulerDiscreteScheduler, Flux2Transformer2DModel
from transformers import Qwen3Config, Qwen3ForCausalLM

from support.tiny_flux import WORDS, word_tokenizer

LENGTH = 20  # tokens of a prompt, the template's included

TEMPLATE = (
    "{% for message in messages %}user {{ message.content }} end {% endfor %}"
    "{% if add_generation_prompt %}answer {% endif %}{% if not enable_thinking %}think think{% endif %}"
)

MODEL_INDEX = {
    "_class_name": "Flux2KleinPipeline",
    "_diffusers_version": "0.42.0",
    "is_distilled": False,
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "Qwen3ForCausalLM"],
    "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
    "transformer": ["diffusers", "Flux2Transformer2DModel"],
    "vae": ["diffusers", "AutoencoderKLFlux2"],
}


def build_folder(folder: Path) -> Path:
    """A token is 16 x 16 pixels, as in the published models."""
    torch.manual_seed(0)
    Flux2Transformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=36, guidance_embeds=False, axes_dims_rope=(4, 4, 4, 4),
    ).save_pretrained(folder / "transformer")  # fmt: skip
    vae = AutoencoderKLFlux2(
        block_out_channels=(4, 4, 4, 8), latent_channels=4, norm_num_groups=2, layers_per_block=1, sample_size=64
    )
    vae.bn.running_mean.normal_(0, 0.3)
    vae.bn.running_var.uniform_(0.3, 2)
    vae.save_pretrained(folder / "vae")
    qwen = Qwen3Config(
        vocab_size=40, hidden_size=12, intermediate_size=16, num_hidden_layers=29, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, max_position_embeddings=64, tie_word_embeddings=False,
    )  # fmt: skip
    Qwen3ForCausalLM(qwen).save_pretrained(folder / "text_encoder")
    tokenizer = word_tokenizer([*WORDS, "user", "end", "answer", "think"], LENGTH)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder / "tokenizer")
    FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps(MODEL_INDEX, indent=2))
    return folder
