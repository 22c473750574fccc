"""DINO v1 against golden vectors of its authors' network and DreamBench's preprocessing."""

import json
import shutil

import pytest
import torch
from PIL import Image
from support.golden_models import pictures
from support.tasks import tasks
from support.tiny_rewards import golden
from torch.nn import functional as F
from transformers import ViTImageProcessorPil

from cgrpo.errors import UserError
from cgrpo.rewards import Reward, load_reward
from cgrpo.rewards.base import to_tensor
from cgrpo.rewards.pixels import centre_crop

GEN, REF = ("gen_0", "gen_1", "gen_2"), ("ref_0", "ref_1")


@pytest.fixture(scope="module")
def reward(golden_dino_v1) -> Reward:
    return load_reward("dino", golden_dino_v1)


def test_pixels_features_and_scores_are_dreambenchs(reward):
    expected = golden("dinov1_io")
    made, (one, two) = pictures(*GEN), pictures(*REF)
    pixels = reward.encoder.prepare(made)
    assert (pixels[..., ::16, ::16] - expected["pixel_values_stride16"]).abs().max() <= 1e-6
    assert (pixels.double().sum((1, 2, 3)) - expected["pixel_values_sum"]).abs().max() <= 1e-2
    assert (reward.encoder.model(pixels).last_hidden_state[:, 0] - expected["cls_gen"]).abs().max() <= 1e-5
    assert (reward.encoder.pictures([one, two]) - F.normalize(expected["cls_ref"], dim=-1)).abs().max() <= 1e-5
    for row, picture in enumerate(made):
        scores = reward(to_tensor([picture] * 4), tasks([(one,), (two,), (one, two), ()]))
        assert (scores[:2] - expected["score"][row]).abs().max() <= 1e-5
        assert abs(scores[2] - expected["score_mean_refs"][row]) <= 1e-5 and scores[3].isnan()


def test_the_folders_own_processor_would_be_another_number(reward, golden_dino_v1):
    """It squashes to 224, bilinear."""
    made, reference = pictures("gen_1", "ref_1")
    processor = ViTImageProcessorPil.from_pretrained(golden_dino_v1)
    pixels = processor(images=[made, reference], return_tensors="pt")["pixel_values"]
    squashed = F.normalize(reward.encoder.model(pixels).last_hidden_state[:, 0], dim=-1)
    score = reward(to_tensor([made]), tasks([(reference,)]))
    assert abs(squashed[0] @ squashed[1] - score).item() > 1e-3


def test_crop_rounds_as_torchvision():
    """Columns numbered by their brightness: 256 of 259 are cut with 1.5 before, rounded to 2; 3.5 would be 4."""
    wide = Image.merge("RGB", [Image.linear_gradient("L").rotate(90).resize((259, 256))] * 3)
    assert centre_crop(wide, 256, 256).tobytes() == wide.crop((2, 0, 258, 256)).tobytes()
    assert centre_crop(wide.transpose(Image.Transpose.TRANSPOSE), 256, 252).size == (252, 252)
    assert centre_crop(wide, 256, 252).tobytes() == wide.crop((4, 2, 256, 254)).tobytes()
    assert centre_crop(Image.new("RGBA", (100, 50)), 20, 10).mode == "RGB"


def test_other_networks_are_refused(golden_dino_v1, tiny_dinov2, tmp_path):
    with pytest.raises(UserError, match="says model_type 'dinov2'; known are vit"):
        load_reward("dino", tiny_dinov2)
    folder = shutil.copytree(golden_dino_v1, tmp_path / "dino")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 4}))
    with pytest.raises(UserError, match="lacks 16 weights"):
        load_reward("dino", folder)
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    with pytest.raises(UserError, match="16 unknown"):
        load_reward("dino", folder)
    (folder / "config.json").write_text(json.dumps(config | {"image_size": 208}))
    with pytest.raises(UserError, match=r"of another shape, such as embeddings.position_embeddings"):
        load_reward("dino", folder)


def test_scores_do_not_depend_on_the_chunk(golden_dino_v1, reward):
    made, reference = pictures("gen_0")[0], pictures("ref_0")[0]
    batch = tasks([(reference,)] * 3)
    images = to_tensor([made, made.rotate(90), made.rotate(180)])
    assert torch.allclose(load_reward("dino", golden_dino_v1, chunk=2)(images, batch), reward(images, batch), atol=1e-6)
