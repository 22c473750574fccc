"""A tiny checkpoint of every type of reward, and its settings."""

from __future__ import annotations

import string
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import BertTokenizer, BlipConfig, Siglip2Tokenizer, SiglipConfig, SiglipImageProcessorPil, SiglipModel

from cgrpo.hub import asset
from cgrpo.rewards import RewardSettings, read_settings
from cgrpo.rewards.image_reward import make_parts
from support import tiny_rewards

LOCAL = ("dino-seg", "dino", "clip", "clip-i", "siglip2", "siglip2 prompt", "csd", "aesthetic", "aesthetic v2")
LOCAL += ("hpsv2", "pickscore", "image-reward", "hpsv3", "function")


def means(pictures, batch):
    """A function of one's own."""
    return [float(torch.tensor(list(picture.tobytes())).float().mean()) for picture in pictures]


def build(place: Path, dino_v1: Path) -> dict[str, RewardSettings]:
    """By the names of ``LOCAL``, each with pictures in chunks of 2. ``dino_v1``: a folder of DINO v1 ViT-S/16."""
    clip, siglip = str(asset("clip")), str(_siglip(place / "siglip"))
    _draw(place / "csd.safetensors", _csd())
    _draw(place / "v1.safetensors", {"weight": (1, 48), "bias": (1,)})
    outputs = (("0", 1024, 48), ("2", 128, 1024), ("4", 64, 128), ("6", 16, 64), ("7", 1, 16))
    v2 = {f"layers.{n}.weight": (out, into) for n, out, into in outputs} | {
        f"layers.{n}.bias": (o,) for n, o, _ in outputs
    }
    _draw(place / "v2.safetensors", v2)
    hpsv3 = tiny_rewards.build_hpsv3(place / "hpsv3")
    tables = {
        "dino-seg": {},
        "dino": {"path": str(dino_v1)},
        "clip": {},
        "clip-i": {"path": clip},
        "siglip2": {"path": siglip},
        "siglip2 prompt": {"type": "siglip2", "path": siglip, "axis": "prompt"},
        "csd": {"path": str(place / "csd.safetensors")},
        "aesthetic": {"path": clip, "head": str(place / "v1.safetensors")},
        "aesthetic v2": {"type": "aesthetic", "path": clip, "head": str(place / "v2.safetensors")},
        "hpsv2": {"path": clip},
        "pickscore": {"path": clip, "processor": ""},
        "image-reward": {"path": str(_image_reward(place / "image-reward"))},
        "hpsv3": {
            "path": str(hpsv3 / "HPSv3.safetensors"),
            "backbone": str(hpsv3 / "backbone"),
            "template": str(hpsv3 / "template.txt"),
        },
        "function": {"type": "support.every_reward:means"},
    }
    return {
        name: read_settings({"type": name, **table, **({} if name == "function" else {"chunk": 2})}, name)
        for name, table in tables.items()
    }


def _draw(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """A file of random weights."""
    generator = torch.Generator().manual_seed(0)
    save_file({key: 0.2 * torch.randn(shape, generator=generator) for key, shape in shapes.items()}, path)


def _csd() -> dict[str, tuple[int, ...]]:
    """The shapes of a CSD with one layer of 64 channels, by its published names."""
    norms = {f"{name}.{part}": (64,) for name in ("ln_pre", "ln_post") for part in ("weight", "bias")}
    block = {"attn.in_proj_weight": (192, 64), "attn.in_proj_bias": (192,), "attn.out_proj.weight": (64, 64)}
    block |= {"attn.out_proj.bias": (64,), "mlp.c_fc.weight": (256, 64), "mlp.c_fc.bias": (256,)}
    block |= {"mlp.c_proj.weight": (64, 256), "mlp.c_proj.bias": (64,)}
    block |= {f"{name}.{part}": (64,) for name in ("ln_1", "ln_2") for part in ("weight", "bias")}
    body = {"class_embedding": (64,), "positional_embedding": (17, 64), "conv1.weight": (64, 3, 8, 8), **norms}
    body |= {f"transformer.resblocks.0.{key}": shape for key, shape in block.items()}
    heads = {"last_layer_style": (64, 24), "last_layer_content": (64, 24)}
    return heads | {f"backbone.{key}": shape for key, shape in body.items()}


def _siglip(folder: Path) -> Path:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**sizes, "vocab_size": 300, "max_position_embeddings": 12, "projection_size": 32}
    model = SiglipModel(SiglipConfig(vision_config={**sizes, "image_size": 32, "patch_size": 8}, text_config=text))
    tiny_rewards.randomise(model, 0.2)
    model.save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 32, "width": 32}, resample=2).save_pretrained(folder)
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *string.ascii_lowercase, "▁"]
    Siglip2Tokenizer(vocab={word: n for n, word in enumerate(words)}, padding_side="left").save_pretrained(folder)
    return folder


def _image_reward(folder: Path) -> Path:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *string.ascii_lowercase, *(f"##{x}" for x in string.ascii_lowercase)]
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 32}
    config = BlipConfig(
        text_config={**sizes, "encoder_hidden_size": 16, "vocab_size": len(words), "max_position_embeddings": 40},
        vision_config={**sizes, "image_size": 32, "patch_size": 16},
    )
    config.save_pretrained(folder)
    BertTokenizer(vocab={word: n for n, word in enumerate(words)}).save_pretrained(folder)
    _draw(folder / "model.safetensors", {key: tuple(w.shape) for key, w in make_parts(config).state_dict().items()})
    return folder
