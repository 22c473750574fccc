"""A tiny checkpoint of every type of reward, and its settings."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import BertTokenizer, BlipConfig

from cgrpo.hub import asset
from cgrpo.rewards import RewardSettings, read_settings
from cgrpo.rewards.image_reward import make_parts
from support import csd, tiny_faces, tiny_rewards

LOCAL = ("dino-seg", "dino", "clip", "clip-i", "siglip2", "siglip2 prompt", "csd", "face", "aesthetic", "aesthetic v2")
ONE_BY_ONE = ("face", "function")  # without a chunk
LOCAL += ("hpsv2", "pickscore", "image-reward", "hpsv3", "function")


def means(pictures, batch):
    """A function of one's own."""
    return [float(torch.tensor(list(picture.tobytes())).float().mean()) for picture in pictures]


def build(place: Path, dino_v1: Path) -> dict[str, RewardSettings]:
    """By the names of ``LOCAL``, each with pictures in chunks of 2. ``dino_v1``: a folder of DINO v1 ViT-S/16."""
    clip, siglip = str(asset("clip")), str(tiny_rewards.build_siglip(place / "siglip"))
    save_file(csd.published().state_dict(), place / "csd.safetensors")
    _draw(place / "v1.safetensors", {"weight": (1, 48), "bias": (1,)})
    v2 = {}
    for number, (out, into) in tiny_rewards.aesthetic_v2(48).items():
        v2 |= {f"layers.{number}.weight": (out, into), f"layers.{number}.bias": (out,)}
    _draw(place / "v2.safetensors", v2)
    hpsv3 = tiny_rewards.build_hpsv3(place / "hpsv3")
    detector = tiny_faces.write_detector(place / "detector.onnx", cell=32, level=100)  # any bright square is a face
    tables = {
        "dino-seg": {},
        "dino": {"path": str(dino_v1)},
        "clip": {},
        "clip-i": {"path": clip},
        "siglip2": {"path": siglip},
        "siglip2 prompt": {"type": "siglip2", "path": siglip, "axis": "prompt"},
        "csd": {"path": str(place / "csd.safetensors")},
        "face": {"path": str(tiny_faces.write_recogniser(place / "face.onnx")), "detector": str(detector)},
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
        name: read_settings({"type": name, **table, **({} if name in ONE_BY_ONE else {"chunk": 2})}, name)
        for name, table in tables.items()
    }


def _draw(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """A file of random weights."""
    generator = torch.Generator().manual_seed(0)
    save_file({key: 0.2 * torch.randn(shape, generator=generator) for key, shape in shapes.items()}, path)


def _image_reward(folder: Path) -> Path:
    words = tiny_rewards.BERT_LETTERS
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 32}
    config = BlipConfig(
        text_config={**sizes, "encoder_hidden_size": 16, "vocab_size": len(words), "max_position_embeddings": 40},
        vision_config={**sizes, "image_size": 32, "patch_size": 16},
    )
    config.save_pretrained(folder)
    BertTokenizer(vocab={word: n for n, word in enumerate(words)}).save_pretrained(folder)
    _draw(folder / "model.safetensors", {key: tuple(w.shape) for key, w in make_parts(config).state_dict().items()})
    return folder
