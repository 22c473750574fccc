"""SigLIP 2's scores on tiny checkpoints in the published layouts, against the stock classes called by hand."""

import pytest
import torch
from support import tiny_rewards
from support.tasks import noise, tasks
from torch.nn import functional as F
from transformers import (
    Siglip2Config,
    Siglip2ImageProcessorPil,
    Siglip2Model,
    Siglip2Tokenizer,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
)

from cgrpo.errors import UserError
from cgrpo.rewards import load_reward
from cgrpo.rewards.base import to_tensor

PROMPTS = ("a Red dog", "a cat", "a red dog")
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = {**SIZES, "vocab_size": 300, "max_position_embeddings": 12, "projection_size": 32}
PATCHES = {"siglip": {"image_size": 32, "patch_size": 8}, "siglip2": {"num_patches": 16, "patch_size": 8}}


@pytest.fixture(scope="module", params=["siglip", "siglip2"])
def folder(request, tmp_path_factory):
    """A fixed resolution is SiglipModel, as google/siglip2-so400m-patch14-384 is published; NaFlex Siglip2Model."""
    place, vision = tmp_path_factory.mktemp(request.param), {**SIZES, **PATCHES[request.param]}
    if request.param == "siglip":
        model = SiglipModel(SiglipConfig(vision_config=vision, text_config=TEXT))
        SiglipImageProcessorPil(size={"height": 32, "width": 32}, resample=2).save_pretrained(place)
    else:
        model = Siglip2Model(Siglip2Config(vision_config=vision, text_config=TEXT))
        Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16).save_pretrained(place)
    tiny_rewards.randomise(model, 0.2)
    model.save_pretrained(place)
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *map(chr, range(97, 123)), "▁", "A", "R"]
    vocabulary = {word: number for number, word in enumerate(words)}
    Siglip2Tokenizer(vocab=vocabulary, padding_side="left").save_pretrained(place)
    return place


def stock(folder):
    kind = SiglipModel if folder.name.startswith("siglip0") else Siglip2Model
    processor = SiglipImageProcessorPil if kind is SiglipModel else Siglip2ImageProcessorPil
    return kind.from_pretrained(folder).eval(), processor.from_pretrained(folder)


@torch.no_grad()
def test_identity_is_the_cosine_with_the_references(folder):
    model, processor = stock(folder)
    made, references = noise(60, 40, 40, 3), noise(60, 50, 50, 2)
    x, y = (
        torch.cat([model.get_image_features(**processor(images=[p], return_tensors="pt")).pooler_output for p in some])
        for some in (made, references)
    )
    expected = F.normalize(x, dim=-1) @ F.normalize(y, dim=-1).T
    batch = tasks([references[:1], references, ()])
    reward = load_reward("siglip2", folder, chunk=2)
    scores = reward(to_tensor(made), batch)
    assert reward.axis == "identity" and not any("text" in key for key, _ in reward.encoder.model.named_parameters())
    assert scores[:2].tolist() == pytest.approx([expected[0, 0].item(), expected[1].mean().item()], abs=1e-5)
    assert scores[2].isnan() and expected.std() > 1e-3


@torch.no_grad()
def test_prompt_is_the_cosine_with_the_text_in_lower_case(folder):
    model, processor = stock(folder)
    tokenizer = Siglip2Tokenizer.from_pretrained(folder)
    made = noise(60, 40, 40, 3)
    x = torch.cat([model.get_image_features(**processor(images=[p], return_tensors="pt")).pooler_output for p in made])
    ids = [tokenizer(text.lower())["input_ids"][:12] for text in PROMPTS]
    padded = torch.tensor([row + [tokenizer.pad_token_id] * (12 - len(row)) for row in ids])
    words = model.get_text_features(padded).pooler_output
    expected = (F.normalize(x, dim=-1) * F.normalize(words, dim=-1)).sum(-1)
    reward = load_reward("siglip2", folder, axis="prompt")
    scores = reward(to_tensor(made), tasks(prompts=PROMPTS))
    assert reward.axis == "prompt" and (scores - expected).abs().max() < 1e-5
    same = reward(to_tensor([made[0]] * 3), tasks(prompts=PROMPTS))
    assert abs(same[0] - same[2]) < 1e-6 < abs(same[0] - same[1])


def test_another_model_is_refused(tiny_dinov2):
    with pytest.raises(UserError, match="known are siglip, siglip2"):
        load_reward("siglip2", tiny_dinov2)
