"""CLIP's scores against golden vectors of OpenAI's code."""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_rewards import DATA, golden
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    BatchEncoding,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPTokenizer,
    CLIPVisionConfig,
)

from cgrpo.rewards.base import to_tensor
from cgrpo.rewards.clip import ClipImage, ClipText
from cgrpo.types import Batch

PROMPTS = tuple(json.loads((DATA / "clip.json").read_text())["prompts_for_tokens"])


def ported(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """OpenAI's weights under transformers' names."""
    made = {
        "logit_scale": state["logit_scale"],
        "text_projection.weight": state["text_projection"].T,
        "visual_projection.weight": state["visual.proj"].T,
        "text_model.embeddings.token_embedding.weight": state["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": state["positional_embedding"],
        "vision_model.embeddings.class_embedding": state["visual.class_embedding"],
        "vision_model.embeddings.patch_embedding.weight": state["visual.conv1.weight"],
        "vision_model.embeddings.position_embedding.weight": state["visual.positional_embedding"],
    }
    for old, new in (
        ("ln_final", "text_model.final_layer_norm"),
        ("visual.ln_pre", "vision_model.pre_layrnorm"),
        ("visual.ln_post", "vision_model.post_layernorm"),
    ):
        made |= {f"{new}.{part}": state[f"{old}.{part}"] for part in ("weight", "bias")}
    names = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    names["attn.out_proj"] = "self_attn.out_proj"
    for old, new in (("transformer", "text_model"), ("visual.transformer", "vision_model")):
        for layer in range(2):
            before, after = f"{old}.resblocks.{layer}.", f"{new}.encoder.layers.{layer}."
            for part in ("weight", "bias"):
                made |= {f"{after}{b}.{part}": state[f"{before}{a}.{part}"] for a, b in names.items()}
                thirds = state[f"{before}attn.in_proj_{part}"].chunk(3)
                made |= {f"{after}self_attn.{x}_proj.{part}": t for x, t in zip("qkv", thirds, strict=True)}
    return {key: value.contiguous() for key, value in made.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("golden_clip")
    width = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2}
    text = CLIPTextConfig(
        **width, num_attention_heads=1, vocab_size=512, bos_token_id=510, eos_token_id=511, pad_token_id=0
    )
    vision = CLIPVisionConfig(**width, num_attention_heads=1, image_size=224, patch_size=32)
    model = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=24))
    model.load_state_dict(ported(golden("clip_state")))
    model.save_pretrained(folder)
    CLIPImageProcessorPil().save_pretrained(folder)
    CLIPTokenizer(vocab={"<|startoftext|>": 510, "<|endoftext|>": 511}, merges=[]).save_pretrained(folder)
    return folder


def golden_tokens(texts, **_) -> BatchEncoding:
    """The golden token ids of the golden prompts, which come from a tokenizer of their own."""
    ids = load_file(DATA / "clip_io.safetensors")["tokens"].long()[[PROMPTS.index(text) for text in texts]]
    return BatchEncoding({"input_ids": ids, "attention_mask": torch.ones_like(ids)})


def pictures(*names: str) -> list[Image.Image]:
    images = load_file(DATA / "images.safetensors")
    return [Image.fromarray(images[name].numpy()) for name in names]


def test_text_scores_are_openais(folder):
    expected = golden("clip_io")
    reward = ClipText(folder)
    reward.encoder.tokenizer = golden_tokens
    made = pictures("gen_0", "gen_1", "gen_2")
    for row, picture in enumerate(made):
        pixels = reward.encoder.processor(images=[picture], return_tensors="pt")["pixel_values"]
        assert (pixels[0, :, ::16, ::16] - expected["pixel_values_stride16"][row]).abs().max() <= 1e-6
    assert (reward.encoder.pictures(made) - F.normalize(expected["img_gen"], dim=-1)).abs().max() <= 1e-5
    assert (reward.encoder.texts(list(PROMPTS)) - F.normalize(expected["txt"], dim=-1)).abs().max() <= 1e-5
    for row, picture in enumerate(made):
        batch = Batch(("0", "1", "2"), PROMPTS, ((),) * 3, ("",) * 3)
        scores = reward(to_tensor([picture] * 3), batch)
        assert (scores.clamp(min=0) - expected["clip_t"][row]).abs().max() <= 1e-5


def test_picture_scores_are_openais(folder):
    expected = golden("clip_io")
    reward = ClipImage(folder)
    one, two = pictures("ref_0", "ref_1")
    for row, picture in enumerate(pictures("gen_0", "gen_1", "gen_2")):
        batch = Batch(("0", "1", "2", "3"), ("",) * 4, ((one,), (two,), (one, two), ()), ("",) * 4)
        scores = reward(to_tensor([picture] * 4), batch)
        assert (scores[:2] - expected["clip_i"][row]).abs().max() <= 1e-5
        assert abs(scores[2] - expected["clip_i_mean_refs"][row]) <= 1e-5 and scores[3].isnan()
