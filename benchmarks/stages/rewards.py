"""The paper's rewards at their published sizes with random weights, on 12 pictures of 512 x 512: DINO-Seg
(DINOv2-large, GroundingDINO-tiny, SAM-base) and HPSv3 (Qwen2-VL-7B). The detector's threshold is 0, so that every
picture is masked."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import (
    BertConfig,
    BertTokenizer,
    BitImageProcessorPil,
    Dinov2Config,
    Dinov2Model,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessorPil,
    Qwen2VLConfig,
    Qwen2VLImageProcessorPil,
    Qwen2VLModel,
    SamConfig,
    SamImageProcessorPil,
    SamModel,
    SamVisionConfig,
    SwinConfig,
)

from cgrpo.rewards.dino import DinoEncoder, DinoSeg
from cgrpo.rewards.hpsv3.reward import PIXELS, HPSv3, _set_rotary, make_head
from cgrpo.rewards.segmenters import GroundedSam
from cgrpo.types import Batch
from stages.harness import Row, device, measure, stage

PICTURES, SIDE = 12, 512
TEXT_TOKENS = 640  # HPSv3's template and a prompt, by Qwen's tokenizer about that many; a picture has 256
DINO: Any = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 518,
    "patch_size": 14,
}
SWIN: Any = {
    "image_size": 224,
    "embed_dim": 96,
    "depths": [2, 2, 6, 2],
    "num_heads": [3, 6, 12, 24],
    "window_size": 7,
}
QWEN = {
    "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
    "num_key_value_heads": 4, "vocab_size": 151658, "max_position_embeddings": 32768,
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}, "rope_theta": 1e6,
    "image_token_id": 151655, "video_token_id": 151656,
    "vision_config": {"depth": 32, "embed_dim": 1280, "num_heads": 16, "mlp_ratio": 4, "hidden_size": 3584},
}  # fmt: skip
TINY_DINO: Any = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
TINY_SWIN: Any = {"embed_dim": 24, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1]}
TINY_DETECTOR: Any = {
    "encoder_layers": 1,
    "decoder_layers": 2,
    "num_queries": 10,
}  # with one decoder layer boxes don't fit
TINY_TEXT: Any = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
TINY_SAM: Any = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "global_attn_indexes": [1],
}
TINY_QWEN: Any = {
    "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "rope_scaling": {"type": "mrope", "mrope_section": [4, 6, 6]},
    "vision_config": {"depth": 1, "embed_dim": 32, "num_heads": 1, "mlp_ratio": 2, "hidden_size": 64},
}  # fmt: skip


def figures(tiny: bool) -> Iterator[Row]:
    count = 2 if tiny else PICTURES
    noise = torch.randint(0, 256, (count, SIDE, SIDE, 3), dtype=torch.uint8)
    reference = Image.fromarray(noise[0].numpy())
    batch = Batch(("0",) * count, ("a dog",) * count, ((reference,),) * count, ("dog",) * count)
    about = {"pictures": count}
    crops = [Image.fromarray(picture.numpy()) for picture in noise]
    with tempfile.TemporaryDirectory() as folder:
        identity = dino_seg(Path(folder), tiny)
    yield about | {"figure": "DINO-Seg", **measure(lambda: identity(noise, batch), 3)}
    yield about | {"figure": "DINOv2-large alone", **measure(lambda: identity.encoder.pictures(crops), 3)}
    identity.to("cpu")
    hpsv3 = RandomHPSv3(tiny)
    inputs = hpsv3.inputs(crops)
    yield about | {"figure": "HPSv3, pictures prepared on the CPU", **measure(lambda: hpsv3.inputs(crops), 3)}
    yield about | {"figure": "HPSv3", "chunk": hpsv3.chunk, **measure(lambda: hpsv3.score_all(inputs), 3)}


def dino_seg(folder: Path, tiny: bool) -> DinoSeg:
    dino = Dinov2Config(**(DINO | (TINY_DINO if tiny else {})))
    Dinov2Model(dino).save_pretrained(folder / "dino")
    BitImageProcessorPil(
        size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224}, resample=3
    ).save_pretrained(folder / "dino")
    detector = GroundingDinoConfig(
        backbone_config=SwinConfig(
            **(SWIN | (TINY_SWIN if tiny else {}) | {"out_features": ["stage2", "stage3", "stage4"]})
        ),
        text_config=BertConfig(**(TINY_TEXT if tiny else {})),
        **(TINY_DETECTOR if tiny else {}),
    )
    GroundingDinoForObjectDetection(detector).save_pretrained(folder / "detector")
    GroundingDinoImageProcessorPil(size={"shortest_edge": 96 if tiny else 800, "longest_edge": 1333}).save_pretrained(
        folder / "detector"
    )
    words = [f"[unused{n}]" for n in range(1100)]
    for place, word in {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "dog", 1012: ".", 1029: "?"}.items():
        words[place] = word
    BertTokenizer(vocab={word: place for place, word in enumerate(words)}).save_pretrained(folder / "detector")
    vision = SamVisionConfig(**TINY_SAM) if tiny else SamVisionConfig()
    SamModel(SamConfig(vision_config=vision.to_dict())).save_pretrained(folder / "sam")
    SamImageProcessorPil().save_pretrained(folder / "sam")
    segmenter = GroundedSam(folder / "detector", folder / "sam", threshold=0.0, device=device())
    return DinoSeg(DinoEncoder(folder / "dino", device()), segmenter)


class RandomHPSv3(HPSv3):
    """HPSv3 without files: random weights made on the device, token ids of about the published template's number."""

    def __init__(self, tiny: bool, chunk: int = 4):
        config = Qwen2VLConfig(**(QWEN | (TINY_QWEN if tiny else {})))
        self.device, self.chunk, self.reward_id = device(), chunk, 151657
        self.image_id = QWEN["image_token_id"]
        self.processor = Qwen2VLImageProcessorPil(size={"shortest_edge": PIXELS, "longest_edge": PIXELS})
        torch.set_default_dtype(torch.bfloat16)
        with torch.device(self.device):
            self.body = Qwen2VLModel(config).eval().requires_grad_(False)
        torch.set_default_dtype(torch.float32)
        self.head = make_head(config.get_text_config().hidden_size).to(self.device)
        _set_rotary(self.body, config, "reference")
        self.body.to(self.device)  # pyright: ignore[reportArgumentType]

    def inputs(self, pictures: list[Image.Image]) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """(ids, mask, pixels, grids) of each chunk."""
        made = []
        for first in range(0, len(pictures), self.chunk):
            found: Any = self.processor(images=pictures[first : first + self.chunk], return_tensors="pt")
            grids_N3 = found["image_grid_thw"]
            image = [self.image_id] * (int(grids_N3[0].prod()) // self.processor.merge_size**2)
            ids_NL = torch.tensor([[*range(100, 100 + TEXT_TOKENS - 1), *image, self.reward_id]] * len(grids_N3))
            made.append((ids_NL, torch.ones_like(ids_NL), found["pixel_values"], grids_N3))
        return made

    def score_all(self, inputs: list[tuple[Tensor, Tensor, Tensor, Tensor]]) -> Tensor:
        return torch.cat([self.logits(*chunk) for chunk in inputs])


if __name__ == "__main__":
    stage("rewards", figures)
