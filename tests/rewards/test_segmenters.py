"""Open-vocabulary segmenters against transformers' own processors, one picture at a time."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from support import tiny_rewards
from transformers import (
    AutoTokenizer,
    CLIPTextConfig,
    CLIPTokenizer,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessorPil,
    GroundingDinoProcessor,
    Sam3Config,
    Sam3DETRDecoderConfig,
    Sam3DETREncoderConfig,
    Sam3GeometryEncoderConfig,
    Sam3MaskDecoderConfig,
    Sam3Model,
    Sam3VisionConfig,
    Sam3ViTConfig,
    SamImageProcessorPil,
    SamModel,
    SamProcessor,
)

from cgrpo.errors import UserError
from cgrpo.hub import asset
from cgrpo.rewards.base import to_tensor
from cgrpo.rewards.dino import DinoEncoder, DinoSeg
from cgrpo.rewards.segmenters import GroundedSam, Sam3Segmenter, SemanticSegmenter, load_segmenter
from cgrpo.types import Batch


def scenes(*sizes: tuple[int, int]) -> list[Image.Image]:
    random = np.random.default_rng(0)
    return [
        Image.fromarray(random.integers(0, 255, (h // 8, w // 8, 3), dtype=np.uint8)).resize((w, h)) for w, h in sizes
    ]


PICTURES = scenes((64, 48), (40, 40), (64, 48), (48, 64), (64, 48))
PHRASES = ["a Dog.", "post box", "cat", "teapot", "Red Robot"]


@pytest.fixture(scope="module")
def grounded(tiny_detector, tiny_sam):
    return GroundedSam(tiny_detector, tiny_sam, threshold=0.0, chunk=2)


@torch.no_grad()
def test_box_and_mask_are_those_of_the_models_own_processors(grounded, tiny_detector, tiny_sam):
    detector = GroundingDinoForObjectDetection.from_pretrained(tiny_detector)
    processor = GroundingDinoProcessor(
        GroundingDinoImageProcessorPil.from_pretrained(tiny_detector), AutoTokenizer.from_pretrained(tiny_detector)
    )
    sam, sam_processor = (
        SamModel.from_pretrained(tiny_sam),
        SamProcessor(SamImageProcessorPil.from_pretrained(tiny_sam)),
    )
    prompts = ["a dog.", "post box.", "cat.", "teapot.", "red robot."]
    masks = grounded.segment(PICTURES, PHRASES)
    found = 0
    for picture, prompt, mask in zip(PICTURES, prompts, masks, strict=True):
        inputs = processor(images=picture, text=prompt, return_tensors="pt")
        result = processor.post_process_grounded_object_detection(
            detector(**inputs), inputs["input_ids"], threshold=0.0, target_sizes=[picture.size[::-1]]
        )[0]
        width, height = picture.size
        box = result["boxes"][result["scores"].argmax()].clamp(0).minimum(torch.tensor([width, height] * 2))
        (ours,) = grounded.boxes([picture], [prompt])
        assert (ours - box).abs().max() < 1e-3
        inputs = sam_processor(picture, input_boxes=[[box.tolist()]], return_tensors="pt")
        inputs["input_boxes"] = inputs["input_boxes"].float()
        out = sam(**{k: inputs[k] for k in ("pixel_values", "input_boxes")}, multimask_output=False)
        expected = sam_processor.post_process_masks(
            out.pred_masks, inputs["original_sizes"], inputs["reshaped_input_sizes"]
        )[0][0, 0].numpy()
        if mask is None:
            assert not expected.any()
            continue
        found += 1
        assert mask.shape == (height, width) and mask.dtype == bool
        assert (mask == expected).mean() > 0.999
    assert found >= 3 and any(mask is not None and not mask.all() for mask in masks)


def test_phrases_find_different_boxes(grounded):
    boxes = grounded.boxes([PICTURES[0]] * 3, ["a dog.", "zebra crossing.", "a dog."])
    assert torch.allclose(boxes[0], boxes[2], atol=1e-3) and not torch.allclose(boxes[0], boxes[1], atol=1e-3)


def test_nothing_above_the_threshold_is_nothing_found(grounded, tiny_dinov2, monkeypatch):
    monkeypatch.setattr(grounded, "threshold", 1.0)
    assert grounded.segment(PICTURES, PHRASES) == [None] * 5
    reward = DinoSeg(DinoEncoder(tiny_dinov2), grounded)
    images = to_tensor([PICTURES[0], PICTURES[2]])
    batch = Batch(("0", "1"), ("p", "p"), ((PICTURES[1],), (PICTURES[3],)), ("dog", "cat"))
    plain = DinoSeg(DinoEncoder(tiny_dinov2), None, masks="none")
    assert torch.allclose(reward(images, batch), plain(images, batch), atol=1e-6)
    assert reward.report() == {"unsegmented": 1.0, "reference_unsegmented": 1.0}


def test_a_task_without_a_subject_is_told(grounded):
    with pytest.raises(UserError, match="has no subject to look for"):
        grounded.segment(PICTURES[:1], [" ."])


@pytest.fixture(scope="module")
def tiny_sam3(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sam3")
    width = {"hidden_size": 32, "num_attention_heads": 2}
    layers = {**width, "num_layers": 2, "intermediate_size": 32}
    backbone = Sam3ViTConfig(
        **width,
        intermediate_size=32,
        num_hidden_layers=2,
        image_size=56,
        patch_size=14,
        window_size=2,
        global_attn_indexes=[1],
        pretrain_image_size=28,
    )
    config = Sam3Config(
        vision_config=Sam3VisionConfig(
            backbone_config=backbone.to_dict(), fpn_hidden_size=32, backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]]
        ).to_dict(),
        text_config=CLIPTextConfig(
            vocab_size=600,
            **width,
            intermediate_size=32,
            num_hidden_layers=1,
            max_position_embeddings=8,
            projection_dim=32,
            bos_token_id=512,
            eos_token_id=513,
        ).to_dict(),
        geometry_encoder_config=Sam3GeometryEncoderConfig(**layers).to_dict(),
        detr_encoder_config=Sam3DETREncoderConfig(**layers).to_dict(),
        detr_decoder_config=Sam3DETRDecoderConfig(**layers, num_queries=4).to_dict(),
        mask_decoder_config=Sam3MaskDecoderConfig(**width, num_upsampling_stages=2).to_dict(),
    )
    letters = sorted(tiny_rewards.ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    CLIPTokenizer(vocab={word: n for n, word in enumerate(words)}, merges=[]).save_pretrained(folder)
    model = Sam3Model(config)
    tiny_rewards.randomise(model, 0.3)
    model.save_pretrained(folder)
    return folder


@torch.no_grad()
def test_sam3_takes_the_best_instance(tiny_sam3):
    segmenter = Sam3Segmenter(tiny_sam3, threshold=0.0, chunk=2)
    model = Sam3Model.from_pretrained(tiny_sam3)
    masks = segmenter.segment(PICTURES, PHRASES)
    tokens = AutoTokenizer.from_pretrained(tiny_sam3)(
        PHRASES, padding="max_length", truncation=True, max_length=8, return_tensors="pt"
    )
    for row, (picture, mask) in enumerate(zip(PICTURES, masks, strict=True)):
        x = torch.tensor(np.asarray(picture.resize((56, 56), Image.Resampling.BILINEAR))) / 127.5 - 1
        out = model(
            pixel_values=x.permute(2, 0, 1)[None],
            input_ids=tokens["input_ids"][row : row + 1],
            attention_mask=tokens["attention_mask"][row : row + 1],
        )
        best = (out.pred_logits.sigmoid() * out.presence_logits.sigmoid())[0].argmax()
        logits = out.pred_masks[0, best].sigmoid()[None, None]
        full = torch.nn.functional.interpolate(logits, size=picture.size[::-1], mode="bilinear")[0, 0] > 0.5
        expected = full.numpy()
        assert (mask == expected).mean() > 0.999 if mask is not None else not expected.any()
    assert any(mask is not None and not mask.all() for mask in masks)
    # Whether the phrase is there at all counts in the score: a threshold that the instance alone would pass.
    instance, presence = out.pred_logits.sigmoid().max().item(), out.presence_logits.sigmoid().item()
    assert presence < 0.999
    segmenter.threshold = instance * (1 + presence) / 2
    assert segmenter.segment(PICTURES[-1:], PHRASES[-1:]) == [None]


def test_sam3_is_read_as_published(tiny_sam3, tmp_path):
    """The hub's checkpoint is that of the video model, the detector a part of it."""
    published = shutil.copytree(tiny_sam3, tmp_path / "sam3")
    detector = json.loads((published / "config.json").read_text())
    (published / "config.json").write_text(json.dumps({"model_type": "sam3_video", "detector_config": detector}))
    state = {f"detector_model.{key}": w.clone() for key, w in load_file(published / "model.safetensors").items()}
    state |= {"tracker_model.memory": torch.zeros(2), "tracker_neck.weight": torch.zeros(2)}
    save_file(state, published / "model.safetensors", metadata={"format": "pt"})
    ours, theirs = (load_segmenter(folder).segment(PICTURES, PHRASES) for folder in (published, tiny_sam3))
    assert all((a is None and b is None) or (a == b).all() for a, b in zip(ours, theirs, strict=True))
    assert any(mask is not None for mask in ours)


def test_a_segmenter_is_told_by_its_configuration(tiny_detector, tiny_sam, tiny_sam3, tiny_dinov2):
    assert isinstance(load_segmenter(tiny_sam, tiny_detector), GroundedSam)
    assert isinstance(load_segmenter(tiny_sam3), Sam3Segmenter)
    assert isinstance(load_segmenter(asset("segmenter")), SemanticSegmenter)
    with pytest.raises(UserError, match="is SAM, which needs a box"):
        load_segmenter(tiny_sam)
    with pytest.raises(UserError, match=r"\(sam3\) takes no detector"):
        load_segmenter(tiny_sam3, tiny_detector)
    with pytest.raises(UserError, match="model_type 'dinov2'; known are grounding-dino, mm-grounding-dino"):
        load_segmenter(tiny_sam, tiny_dinov2)
    with pytest.raises(UserError, match="model_type 'dinov2'; known are segformer"):
        load_segmenter(tiny_dinov2)
