"""CLIP's scores against golden vectors of OpenAI's code."""

import pytest
import torch
from support.golden_models import PROMPTS, golden_tokens, pictures
from support.tasks import tasks
from support.tiny_rewards import golden
from torch.nn import functional as F

from cgrpo.rewards import load_reward
from cgrpo.rewards.base import to_tensor


def test_text_scores_are_openais(golden_clip):
    expected = golden("clip_io")
    reward = load_reward("clip", golden_clip)
    reward.encoder.tokenizer = golden_tokens
    made = pictures("gen_0", "gen_1", "gen_2")
    for row, picture in enumerate(made):
        pixels = reward.encoder.processor(images=[picture], return_tensors="pt")["pixel_values"]
        assert (pixels[0, :, ::16, ::16] - expected["pixel_values_stride16"][row]).abs().max() <= 1e-6
    assert (reward.encoder.pictures(made) - F.normalize(expected["img_gen"], dim=-1)).abs().max() <= 1e-5
    assert (reward.encoder.texts(list(PROMPTS)) - F.normalize(expected["txt"], dim=-1)).abs().max() <= 1e-5
    for row, picture in enumerate(made):
        scores = reward(to_tensor([picture] * 3), tasks(prompts=PROMPTS))
        assert (scores.clamp(min=0) - expected["clip_t"][row]).abs().max() <= 1e-5


def test_picture_scores_are_openais(golden_clip):
    expected = golden("clip_io")
    reward = load_reward("clip-i", golden_clip)
    one, two = pictures("ref_0", "ref_1")
    for row, picture in enumerate(pictures("gen_0", "gen_1", "gen_2")):
        scores = reward(to_tensor([picture] * 4), tasks([(one,), (two,), (one, two), ()]))
        assert (scores[:2] - expected["clip_i"][row]).abs().max() <= 1e-5
        assert abs(scores[2] - expected["clip_i_mean_refs"][row]) <= 1e-5 and scores[3].isnan()


def test_references_are_encoded_once(golden_clip):
    """One row per distinct picture, whoever holds it; the encoder of pictures carries no text model."""
    reward = load_reward("clip-i", golden_clip)
    assert not any(name.startswith("text") for name, _ in reward.encoder.model.named_parameters())
    one, two = pictures("ref_0", "ref_1")
    asked = []
    encode = reward.encoder.prepare
    reward.encoder.prepare = lambda some: asked.append(len(some)) or encode(some)
    images = to_tensor(pictures("gen_0") * 4)
    batch = tasks([(one,), (one.copy(),), (one,), (two,)])
    first = reward(images, batch)
    assert sorted(asked) == [1, 1, 4]
    assert torch.equal(reward(images, batch), first) and sorted(asked) == [1, 1, 4, 4]


def test_a_group_is_scored_in_chunks(golden_clip):
    made, references = to_tensor(pictures("gen_0") * 3), [pictures("ref_0")] * 3
    scores = load_reward("clip-i", golden_clip, chunk=2)(made, tasks(references))
    assert scores.shape == (3,)
    assert scores.tolist() == pytest.approx([golden("clip_io")["clip_i"][0, 0].item()] * 3, abs=1e-5)
