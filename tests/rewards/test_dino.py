"""DINO-Seg: golden vectors of DINOv2, what is masked when, what is counted."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from support import tiny_rewards
from support.golden_models import pictures
from support.tasks import noise, tasks
from torch.nn import functional as F
from transformers import (
    BitImageProcessorPil,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
)

from cgrpo.errors import UserError
from cgrpo.rewards.base import to_tensor
from cgrpo.rewards.dino import DinoEncoder, DinoSeg
from cgrpo.rewards.segmenters import Segmenter

GEN, REF = ("gen_0", "gen_1", "gen_2"), ("ref_0", "ref_1")


def scene(seed: int, size: int = 40) -> Image.Image:
    return noise(size, size, seed)[0]


class LeftHalf(Segmenter):
    """Finds the left half, except in pictures whose first pixel is black."""

    def __init__(self):
        self.asked = []

    def segment(self, pictures, phrases):
        self.asked += phrases
        found = []
        for picture in pictures:
            mask = np.zeros(picture.size[::-1], dtype=bool)
            mask[:, : picture.width // 2] = True
            found.append(mask if picture.getpixel((0, 0)) != (0, 0, 0) else None)
        return found


@pytest.fixture(scope="module")
def golden_dino(tmp_path_factory) -> DinoSeg:
    folder = tmp_path_factory.mktemp("golden_dinov2")
    config = json.loads((tiny_rewards.DATA / "dinov2.json").read_text())["config"] | {"model_type": "dinov2"}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tiny_rewards.golden("dinov2_state"), folder / "model.safetensors", metadata={"format": "pt"})
    BitImageProcessorPil(size={"shortest_edge": 256}, resample=3, **tiny_rewards.IMAGENET).save_pretrained(folder)
    return DinoSeg(DinoEncoder(folder), None, masks="none")


def test_pixels_features_and_scores_are_the_releases(golden_dino):
    expected = tiny_rewards.golden("dinov2_io")
    made, references = pictures(*GEN), pictures(*REF)
    for row, picture in enumerate(made):
        pixels = golden_dino.encoder.processor(images=[picture], return_tensors="pt")["pixel_values"]
        assert pixels.shape == (1, 3, 224, 224)
        assert (pixels[..., ::16, ::16] - expected["pixel_values_stride16"][row]).abs().max() <= 1e-6
        cls = golden_dino.encoder.model(pixels).last_hidden_state[:, 0]
        assert (cls - expected["cls_gen"][row]).abs().max() <= 1e-5
    features = golden_dino.encoder.pictures(references)
    assert (features - F.normalize(expected["cls_ref"], dim=-1)).abs().max() <= 1e-5
    for row, picture in enumerate(made):
        for column, reference in enumerate(references):
            score = golden_dino(to_tensor([picture]), tasks([(reference,)]))
            assert abs(score.item() - expected["score_x100"][row, column].item() / 100) <= 1e-5


def test_several_references_are_averaged_and_none_is_no_score(golden_dino):
    expected = tiny_rewards.golden("dinov2_io")["score_x100"][0] / 100
    images = to_tensor(pictures(GEN[0]) * 2)
    scores = golden_dino(images, tasks([tuple(pictures(*REF)), ()]))
    assert abs(scores[0] - expected.mean()) <= 1e-5 and scores[1].isnan()
    assert golden_dino.report() == {}


def test_masks_say_which_pictures_are_cut_out(tiny_dinov2):
    made, reference = scene(0), scene(1)
    changed = [
        Image.fromarray(np.concatenate([np.asarray(p)[:, :20], np.asarray(scene(9))[:, 20:]], 1))
        for p in (made, reference)
    ]

    def score(masks, picture, other):
        reward = DinoSeg(DinoEncoder(tiny_dinov2), LeftHalf() if masks != "none" else None, masks=masks)
        return reward(to_tensor([picture]), tasks([(other,)])).item()

    both, reference_only, none = (score(masks, made, reference) for masks in ("both", "reference", "none"))
    assert len({round(both, 4), round(reference_only, 4), round(none, 4)}) == 3
    assert score("both", changed[0], changed[1]) == pytest.approx(both, abs=1e-6)
    assert score("reference", made, changed[1]) == pytest.approx(reference_only, abs=1e-6)
    assert score("reference", changed[0], reference) != pytest.approx(reference_only, abs=1e-4)
    assert score("none", made, changed[1]) != pytest.approx(none, abs=1e-4)


def test_shares_left_whole_are_reported_once(tiny_dinov2):
    dark = Image.new("RGB", (40, 40))
    reward = DinoSeg(DinoEncoder(tiny_dinov2), LeftHalf())
    batch = tasks([(scene(1), dark), (scene(1),)])
    reward(to_tensor([dark, scene(2)]), batch)
    assert reward.report() == {"unsegmented": 0.5, "reference_unsegmented": pytest.approx(1 / 3)}
    assert reward.report() == {}
    reward(to_tensor([dark, dark]), batch)  # references are remembered, and counted all the same
    assert reward.report() == {"unsegmented": 1.0, "reference_unsegmented": pytest.approx(1 / 3)}


def test_a_given_mask_comes_before_the_segmenter(tiny_dinov2):
    right = np.zeros((40, 40), dtype=np.uint8)
    right[:, 20:] = 255
    mask = Image.fromarray(right)
    images, reference = to_tensor([scene(0)]), scene(1)
    segmenter = LeftHalf()
    reward = DinoSeg(DinoEncoder(tiny_dinov2), segmenter, masks="reference")
    found = reward(images, tasks([(reference,)]))
    assert segmenter.asked == ["toy"]
    given = reward(images, tasks([(reference,)], masks=((mask,),)))
    assert segmenter.asked == ["toy"] and not torch.allclose(given, found, atol=1e-4)
    alone = DinoSeg(
        DinoEncoder(tiny_dinov2), None, masks="reference"
    )  # the release: a mask beside the reference, or none
    assert torch.equal(alone(images, tasks([(reference,)], masks=((mask,),))), given)
    assert alone.report() == {"reference_unsegmented": 0.0}
    whole = alone(images, tasks([(reference,)], masks=((None,),)))
    assert torch.allclose(
        whole, DinoSeg(DinoEncoder(tiny_dinov2), None, masks="none")(images, tasks([(reference,)])), atol=1e-6
    )
    assert alone.report() == {"reference_unsegmented": 1.0}
    with pytest.raises(UserError, match=r"'toy' is \(20, 40\) pixels.*\(40, 40\)"):
        alone(images, tasks([(reference,)], masks=((mask.crop((0, 0, 20, 40)),),)))


def test_batches_carry_their_masks():
    mask = Image.new("L", (2, 2))
    batch = tasks([(scene(0),), (scene(1),)], masks=((mask,), (None,)))
    assert batch.repeat(2).reference_masks == ((mask,), (mask,), (None,), (None,))
    assert batch.select(slice(1, 2)).reference_masks == ((None,),)
    assert tasks([()]).repeat(2).reference_masks is None


def test_both_needs_a_segmenter(tiny_dinov2):
    with pytest.raises(UserError, match="masks = 'both' needs a segmenter"):
        DinoSeg(DinoEncoder(tiny_dinov2), None)


@pytest.mark.parametrize(
    ("model", "config", "processor"),
    [
        (Dinov2WithRegistersModel, Dinov2WithRegistersConfig, "BitImageProcessor"),
        (DINOv3ViTModel, DINOv3ViTConfig, "DINOv3ViTImageProcessorFast"),
    ],
)
def test_other_backbones_are_told_by_their_configuration(tmp_path, model, config, processor):
    made = model(
        config(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=28,
            patch_size=14,
        )
    )
    tiny_rewards.randomise(made, 0.2)
    made.save_pretrained(tmp_path)
    square = {"size": {"height": 28, "width": 28}, "resample": 2, "do_center_crop": None, "crop_size": None}
    shorter = {"size": {"shortest_edge": 32}, "resample": 3, "crop_size": {"height": 28, "width": 28}}
    settings = {"image_processor_type": processor, **tiny_rewards.IMAGENET}
    settings |= square if model is DINOv3ViTModel else shorter
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    reward = DinoSeg(DinoEncoder(tmp_path), None, masks="none")
    picture = scene(0, 56)
    if model is DINOv3ViTModel:  # squashed, bilinear
        pixels = np.asarray(picture.resize((28, 28), Image.Resampling.BILINEAR))
    else:
        pixels = np.asarray(picture.resize((32, 32), Image.Resampling.BICUBIC))[2:30, 2:30]
    mean, std = torch.tensor(tiny_rewards.IMAGENET["image_mean"]), torch.tensor(tiny_rewards.IMAGENET["image_std"])
    x = ((torch.tensor(pixels) / 255 - mean) / std).permute(2, 0, 1)[None]
    expected = F.normalize(made.eval()(x).pooler_output, dim=-1)
    assert (reward.encoder.pictures([picture]) - expected).abs().max() < 1e-5
    score = reward(to_tensor([picture]), tasks([(picture.convert("RGBA"),)]))
    assert score.item() == pytest.approx(1, abs=1e-5)
