"""ImageReward on a tiny checkpoint of the published layout, against BLIP's forward written out."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from support.tasks import noise, tasks
from support.tiny_rewards import BERT_LETTERS, aesthetic_v2
from torch import Tensor
from torch.nn import functional as F
from transformers import BertTokenizer, BlipConfig

from cgrpo.errors import UserError
from cgrpo.rewards import make_reward
from cgrpo.rewards.base import to_tensor
from cgrpo.rewards.image_reward import (
    ImageReward,
    ImageRewardSettings,
    convert_image_reward,
    make_parts,
    published_blip,
)

TEXT, VISION, HEADS, SIDE, PATCH = 16, 24, 2, 32, 16
CONFIG = BlipConfig(
    text_config={
        "hidden_size": TEXT,
        "encoder_hidden_size": VISION,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
        "vocab_size": len(BERT_LETTERS),
        "max_position_embeddings": 40,
    },
    vision_config={
        "hidden_size": VISION,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
        "image_size": SIDE,
        "patch_size": PATCH,
        "layer_norm_eps": 1e-6,
    },
)
V2 = aesthetic_v2(TEXT)
PROMPTS = ("a dog", "red toys on a beach " * 5)


def weights() -> dict[str, Tensor]:
    """A random state dict under the published keys."""
    generator = torch.Generator().manual_seed(0)
    state = {}

    def linear(name: str, out: int, into: int) -> None:
        state[f"{name}.weight"] = torch.randn(out, into, generator=generator) / into**0.5
        state[f"{name}.bias"] = torch.randn(out, generator=generator) / 3

    def norm(name: str, width: int) -> None:
        state[f"{name}.weight"] = 1 + torch.randn(width, generator=generator) / 5
        state[f"{name}.bias"] = torch.randn(width, generator=generator) / 5

    eye, book = "blip.visual_encoder.", "blip.text_encoder."
    state[f"{eye}cls_token"] = torch.randn(1, 1, VISION, generator=generator)
    state[f"{eye}pos_embed"] = torch.randn(1, 5, VISION, generator=generator)
    linear(f"{eye}patch_embed.proj", VISION, 3 * PATCH**2)
    state[f"{eye}patch_embed.proj.weight"] = state[f"{eye}patch_embed.proj.weight"].view(VISION, 3, PATCH, PATCH)
    for n in range(2):
        block = f"{eye}blocks.{n}."
        norm(f"{block}norm1", VISION)
        norm(f"{block}norm2", VISION)
        linear(f"{block}attn.qkv", 3 * VISION, VISION)
        linear(f"{block}attn.proj", VISION, VISION)
        linear(f"{block}mlp.fc1", 48, VISION)
        linear(f"{block}mlp.fc2", VISION, 48)
        layer = f"{book}encoder.layer.{n}."
        for kind, width in (("attention", TEXT), ("crossattention", VISION)):
            linear(f"{layer}{kind}.self.query", TEXT, TEXT)
            linear(f"{layer}{kind}.self.key", TEXT, width)
            linear(f"{layer}{kind}.self.value", TEXT, width)
            linear(f"{layer}{kind}.output.dense", TEXT, TEXT)
            norm(f"{layer}{kind}.output.LayerNorm", TEXT)
        linear(f"{layer}intermediate.dense", 32, TEXT)
        linear(f"{layer}output.dense", TEXT, 32)
        norm(f"{layer}output.LayerNorm", TEXT)
    norm(f"{eye}norm", VISION)
    state[f"{book}embeddings.word_embeddings.weight"] = torch.randn(len(BERT_LETTERS), TEXT, generator=generator)
    state[f"{book}embeddings.position_embeddings.weight"] = torch.randn(40, TEXT, generator=generator)
    norm(f"{book}embeddings.LayerNorm", TEXT)
    for number, (out, into) in V2.items():
        linear(f"mlp.layers.{number}", out, into)
    linear("blip.vision_proj", 4, VISION)  # not used by the score
    linear("blip.text_proj", 4, TEXT)
    state[f"{book}embeddings.position_ids"] = torch.arange(40)[None]
    return state


def _norm(state, name: str, x: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)


def _linear(state, name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].flatten(1).T + state[f"{name}.bias"]


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One row's attention, [L, C] each."""
    q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(0, 1) for part in (q, k, v))
    return ((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v).transpose(0, 1).flatten(1)


def by_hand(state, picture: Image.Image, prompt: str) -> float:
    """A score; the prompt's padding is left out rather than masked."""
    short = min(picture.size)
    width, height = (length * SIDE // short for length in picture.size)
    left, top = round((width - SIDE) / 2), round((height - SIDE) / 2)
    fitted = picture.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + SIDE, top + SIDE))
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
    pixels = (torch.tensor(np.asarray(fitted)) / 255 - mean) / torch.tensor([0.26862954, 0.26130258, 0.27577711])
    eye, book = "blip.visual_encoder.", "blip.text_encoder."
    squares = pixels.permute(2, 0, 1).unfold(1, PATCH, PATCH).unfold(2, PATCH, PATCH)
    patches = _linear(state, f"{eye}patch_embed.proj", squares.permute(1, 2, 0, 3, 4).flatten(2).flatten(0, 1))
    x = torch.cat([state[f"{eye}cls_token"][0], patches]) + state[f"{eye}pos_embed"][0]
    for n in range(2):
        block = f"{eye}blocks.{n}."
        q, k, v = _linear(state, f"{block}attn.qkv", _norm(state, f"{block}norm1", x, 1e-6)).chunk(3, -1)
        x = x + _linear(state, f"{block}attn.proj", _attend(q, k, v))
        hidden = F.gelu(_linear(state, f"{block}mlp.fc1", _norm(state, f"{block}norm2", x, 1e-6)))
        x = x + _linear(state, f"{block}mlp.fc2", hidden)
    seen = _norm(state, f"{eye}norm", x, 1e-6)
    pieces = [piece for word in prompt.split() for piece in (word[0], *(f"##{letter}" for letter in word[1:]))]
    ids = torch.tensor([BERT_LETTERS.index(piece) for piece in ("[CLS]", *pieces[:33], "[SEP]")])
    y = state[f"{book}embeddings.word_embeddings.weight"][ids]
    y = y + state[f"{book}embeddings.position_embeddings.weight"][: len(ids)]
    y = _norm(state, f"{book}embeddings.LayerNorm", y, 1e-12)
    for n in range(2):
        layer = f"{book}encoder.layer.{n}."
        for kind in ("attention", "crossattention"):
            source = y if kind == "attention" else seen
            q = _linear(state, f"{layer}{kind}.self.query", y)
            k, v = (_linear(state, f"{layer}{kind}.self.{part}", source) for part in ("key", "value"))
            mixed = _linear(state, f"{layer}{kind}.output.dense", _attend(q, k, v))
            y = _norm(state, f"{layer}{kind}.output.LayerNorm", y + mixed, 1e-12)
        hidden = _linear(state, f"{layer}output.dense", F.gelu(_linear(state, f"{layer}intermediate.dense", y)))
        y = _norm(state, f"{layer}output.LayerNorm", y + hidden, 1e-12)
    z = y[:1]
    for number in V2:
        z = _linear(state, f"mlp.layers.{number}", z)
    return (z.item() - 0.16717362830052426) / 1.0333394966054072


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    BertTokenizer(vocab={word: n for n, word in enumerate(BERT_LETTERS)}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    place = tmp_path_factory.mktemp("converted")
    torch.save(weights(), place / "ImageReward.pt")
    return convert_image_reward(place / "ImageReward.pt", place / "reward", tokenizer, CONFIG)


def test_converted_scores_are_blips(folder):
    reward = make_reward("extra", ImageRewardSettings(path=str(folder), chunk=2))
    pictures = [noise(70, 50, seed)[0] for seed in range(3)]
    prompts = (*PROMPTS, PROMPTS[0])  # one short, one cut at 35 tokens
    expected = [by_hand(weights(), picture, prompt) for picture, prompt in zip(pictures, prompts, strict=True)]
    assert reward(to_tensor(pictures), tasks(prompts=prompts)).tolist() == pytest.approx(expected, abs=2e-5)
    assert np.ptp(expected) > 1e-2


def test_the_published_size_is_blip_large_and_bert_base():
    """ViT-L/16 at 224 pixels has 303,301,632 weights; BERT-base of 30,524 words, without pooler and token types,
    108,891,648, and to attend to the picture 12 * (2 * (768 * 768 + 768) + 2 * (1024 * 768 + 768) + 2 * 768) more;
    the head 787,456 + 131,200 + 8,256 + 1,040 + 17.
    """
    config = published_blip()
    counts = {name: sum(w.numel() for w in part.parameters()) for name, part in make_parts(config).items()}
    cross = 12 * (2 * (768 * 768 + 768) + 2 * (1024 * 768 + 768) + 2 * 768)
    assert counts == {"vision_model": 303_301_632, "text_model": 108_891_648 + cross, "head": 927_969}
    assert (config.text_config.num_attention_heads, config.vision_config.num_attention_heads) == (12, 16)
    assert (config.text_config.layer_norm_eps, config.vision_config.layer_norm_eps) == (1e-12, 1e-6)


def test_what_does_not_fit_is_refused(folder, tokenizer, tmp_path):
    state = weights()
    torch.save(state | {"blip.text_encoder.pooler.dense.weight": torch.zeros(1)}, tmp_path / "more.pt")
    with pytest.raises(UserError, match=r"1 unknown weights, such as text_model.pooler.dense.weight"):
        convert_image_reward(tmp_path / "more.pt", tmp_path / "out", tokenizer, CONFIG)
    torch.save({key: value for key, value in state.items() if key != "mlp.layers.7.bias"}, tmp_path / "less.pt")
    with pytest.raises(UserError, match=r"lacks 1 weights, such as head.7.bias"):
        convert_image_reward(tmp_path / "less.pt", tmp_path / "out", tokenizer, CONFIG)
    torch.save(state, tmp_path / "tiny.pt")
    with pytest.raises(UserError, match="of another shape"):
        convert_image_reward(tmp_path / "tiny.pt", tmp_path / "out", tokenizer)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="there already"):
        convert_image_reward(tmp_path / "tiny.pt", folder, tokenizer, CONFIG)
    out = convert_image_reward(tmp_path / "tiny.pt", tmp_path / "out", tokenizer, CONFIG)
    save_file(
        {k: v for k, v in load_file(out / "model.safetensors").items() if k != "head.0.bias"}, out / "model.safetensors"
    )
    with pytest.raises(UserError, match=r"does not fit ImageReward: lacks 1 weights, such as head.0.bias"):
        ImageReward(out)
    (out / "model.safetensors").unlink()
    with pytest.raises(UserError, match="model.safetensors: no such file; give the folder"):
        ImageReward(out)
    (out / "config.json").write_text(json.dumps({"model_type": "clip"}))
    with pytest.raises(UserError, match="known are blip"):
        ImageReward(out)
