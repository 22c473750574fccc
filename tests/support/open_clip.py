"""A tiny CLIP as OpenCLIP keeps it: its weights, its own forward written out, and a transformers configuration."""

from __future__ import annotations

import string
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPTokenizer

WIDTHS = {"": 16, "visual.": 24}
HEADS, LAYERS, CHANNELS, SIDE, PATCH, LENGTH = 2, 2, 12, 32, 8, 20
WORDS = [*string.ascii_lowercase, *(f"{letter}</w>" for letter in string.ascii_lowercase)]
VOCABULARY = {word: n for n, word in enumerate([*WORDS, "<|startoftext|>", "<|endoftext|>"])}


def weights(seed: int = 0) -> dict[str, Tensor]:
    """A random state dict under OpenCLIP's keys."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return 0.3 * torch.randn(shape, generator=generator)

    state = {
        "logit_scale": torch.tensor(4.6),
        "positional_embedding": draw(LENGTH, 16),
        "text_projection": draw(16, CHANNELS),
        "token_embedding.weight": draw(len(VOCABULARY), 16),
        "visual.class_embedding": draw(24),
        "visual.positional_embedding": draw((SIDE // PATCH) ** 2 + 1, 24),
        "visual.proj": draw(24, CHANNELS),
        "visual.conv1.weight": draw(24, 3, PATCH, PATCH),
    }
    norms = {"ln_final": 16, "visual.ln_pre": 24, "visual.ln_post": 24}
    for tower, width in WIDTHS.items():
        for layer in range(LAYERS):
            block = f"{tower}transformer.resblocks.{layer}."
            norms |= {f"{block}ln_1": width, f"{block}ln_2": width}
            state |= {
                f"{block}attn.in_proj_weight": draw(3 * width, width),
                f"{block}attn.in_proj_bias": draw(3 * width),
            }
            for part, (out, into) in {"attn.out_proj": (1, 1), "mlp.c_fc": (4, 1), "mlp.c_proj": (1, 4)}.items():
                state |= {f"{block}{part}.weight": draw(out * width, into * width)}
                state |= {f"{block}{part}.bias": draw(out * width)}
    for name, width in norms.items():
        state |= {f"{name}.weight": 1 + draw(width), f"{name}.bias": draw(width)}
    return state


def _norm(state: dict[str, Tensor], name: str, x_NLC: Tensor) -> Tensor:
    return F.layer_norm(x_NLC, x_NLC.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-5)


def _linear(state: dict[str, Tensor], name: str, x_NLC: Tensor) -> Tensor:
    return x_NLC @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def _blocks(state: dict[str, Tensor], tower: str, x_NLC: Tensor, mask_LL: Tensor | None) -> Tensor:
    for layer in range(LAYERS):
        block = f"{tower}transformer.resblocks.{layer}."
        normed = _norm(state, f"{block}ln_1", x_NLC)
        qkv = normed @ state[f"{block}attn.in_proj_weight"].T + state[f"{block}attn.in_proj_bias"]
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in qkv.chunk(3, -1))
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        if mask_LL is not None:
            scores = scores + mask_LL
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        x_NLC = x_NLC + _linear(state, f"{block}attn.out_proj", mixed)
        hidden = F.gelu(_linear(state, f"{block}mlp.c_fc", _norm(state, f"{block}ln_2", x_NLC)))
        x_NLC = x_NLC + _linear(state, f"{block}mlp.c_proj", hidden)
    return x_NLC


def encode_pixels(state: dict[str, Tensor], pixels: Tensor) -> Tensor:
    """Unit-length embeddings [N, C]."""
    patches = F.conv2d(pixels, state["visual.conv1.weight"], stride=PATCH).flatten(2).transpose(1, 2)
    first = state["visual.class_embedding"].expand(len(pixels), 1, -1)
    x_NLC = torch.cat([first, patches], 1) + state["visual.positional_embedding"]
    x_NLC = _blocks(state, "visual.", _norm(state, "visual.ln_pre", x_NLC), None)
    return F.normalize(_norm(state, "visual.ln_post", x_NLC[:, 0]) @ state["visual.proj"], dim=-1)


def encode_words(state: dict[str, Tensor], text: str) -> Tensor:
    """Unit-length embedding [1, C] of words of letters; as OpenCLIP pads: zeros after the end."""
    pieces = [VOCABULARY[p] for word in text.split() for p in (*word[:-1], f"{word[-1]}</w>")]
    ids = [VOCABULARY["<|startoftext|>"], *pieces, VOCABULARY["<|endoftext|>"]]
    ids = torch.tensor([ids + [0] * (LENGTH - len(ids))])
    x_NLC = state["token_embedding.weight"][ids] + state["positional_embedding"]
    mask_LL = torch.full((LENGTH, LENGTH), float("-inf")).triu(1)
    x_NLC = _norm(state, "ln_final", _blocks(state, "", x_NLC, mask_LL))
    return F.normalize(x_NLC[:, ids[0].argmax()] @ state["text_projection"], dim=-1)


def build(folder: Path) -> Path:
    """The configuration and tokenizer beside which a converted checkpoint lies."""
    shared = {"num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "hidden_act": "gelu"}
    text = {"hidden_size": 16, "intermediate_size": 64, "vocab_size": len(VOCABULARY)}
    text |= {"bos_token_id": VOCABULARY["<|startoftext|>"], "eos_token_id": VOCABULARY["<|endoftext|>"]}
    vision = {"hidden_size": 24, "intermediate_size": 96, "image_size": SIDE, "patch_size": PATCH}
    CLIPConfig(
        text_config=shared | text | {"max_position_embeddings": LENGTH, "pad_token_id": 0},
        vision_config=shared | vision,
        projection_dim=CHANNELS,
    ).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}).save_pretrained(
        folder
    )
    CLIPTokenizer(vocab=VOCABULARY, merges=[]).save_pretrained(folder)
    return folder
