"""SigLIP 2's scores on tiny checkpoints in the published layouts, against the stock classes called by hand."""

import pytest
import torch
from support import tiny_rewards
from support.tasks import noise, tasks
from torch.nn import functional as F
from transformers import (
    Siglip2ImageProcessorPil,
    Siglip2Model,
    Siglip2Tokenizer,
    SiglipImageProcessorPil,
    SiglipModel,
)

from cgrpo.errors import UserError
from cgrpo.rewards import load_reward
from cgrpo.rewards.base import to_tensor

PROMPTS = ("a Red dog", "a cat", "a red dog")


@pytest.fixture(scope="module", params=["siglip", "siglip2"])
def folder(request, tmp_path_factory):
    """A fixed resolution is SiglipModel, as google/siglip2-so400m-patch14-384 is published; NaFlex Siglip2Model."""
    return tiny_rewards.build_siglip(tmp_path_factory.mktemp(request.param), naflex=request.param == "siglip2")


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
