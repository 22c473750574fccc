"""Scoring against the bare network's forward, at the published sizes with random weights.

    OMP_NUM_THREADS=1 python benchmarks/reward_throughput.py [--repeats 7] [--batches 1 12] [--device cpu]

DINOv2-base and CLIP ViT-B/32 score groups of 512 x 512 pictures that share one reference and one prompt. Each repeat
times one whole call of the reward and, interleaved, the network alone on the same pixel values. Preparing pictures is
reported apart; the ratio is the rest of the call over the bare forward, medians of both. That the reference is
encoded once and no more is counted, not assumed.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import (
    BitImageProcessorPil,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTokenizer,
    Dinov2Config,
    Dinov2Model,
)

from cgrpo.rewards import load_reward
from cgrpo.rewards.base import Reward
from cgrpo.rewards.dino import DinoEncoder, DinoSeg
from cgrpo.types import Batch


class Watched:
    """A picture processor that keeps its time, the number of its pictures, and its last result."""

    def __init__(self, processor: Callable[..., dict[str, Tensor]]):
        self.processor, self.seconds, self.pictures = processor, 0.0, 0

    def __call__(self, images: list[Image.Image], return_tensors: str) -> dict[str, Tensor]:
        start = time.perf_counter()
        made = self.processor(images=images, return_tensors=return_tensors)
        self.seconds += time.perf_counter() - start
        self.pictures += len(images)
        self.pixels = made["pixel_values"]
        return made


def build(folder: Path) -> tuple[Path, Path]:
    """Folders of DINOv2-base and CLIP ViT-B/32, random weights; the tokenizer knows no words."""
    dino, clip = folder / "dino", folder / "clip"
    Dinov2Model(Dinov2Config(image_size=518, patch_size=14)).save_pretrained(dino)
    BitImageProcessorPil(size={"shortest_edge": 256}, resample=3).save_pretrained(dino)
    CLIPModel(CLIPConfig()).save_pretrained(clip)
    CLIPImageProcessorPil().save_pretrained(clip)
    CLIPTokenizer(vocab={"<|startoftext|>": 49406, "<|endoftext|>": 49407}, merges=[]).save_pretrained(clip)
    return dino, clip


def seconds(call: Callable[[], object], device: str) -> float:
    start = time.perf_counter()
    call()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - start


@torch.no_grad()
def measure(
    name: str, reward: Reward, watched: Watched, forward: Callable[[Tensor], object], count: int, options
) -> None:
    """Print one row of the table."""
    generator = torch.Generator().manual_seed(count)
    images_NHWC = torch.randint(0, 256, (count, 512, 512, 3), dtype=torch.uint8, generator=generator)
    reference = Image.effect_noise((1024, 1024), 60).convert("RGB")
    batch = Batch(("0",), ("",), ((reference,),), ("toy",)).repeat(count)
    reward(images_NHWC, batch)  # the references and the prompt are encoded here, and only here
    pixels = watched.pixels.to(options.device)
    if len(pixels) != count:
        pixels = torch.randn(count, *pixels.shape[1:], device=options.device)
    totals, preparations, bare = [], [], []
    for _ in range(options.repeats):
        watched.seconds, watched.pictures = 0.0, 0
        totals.append(seconds(lambda: reward(images_NHWC, batch), options.device))
        preparations.append(watched.seconds)
        assert watched.pictures == count, f"{watched.pictures} pictures encoded, not {count}"
        bare.append(seconds(lambda: forward(pixels), options.device))
    scoring = statistics.median(total - part for total, part in zip(totals, preparations, strict=True))
    network, preparing = statistics.median(bare), statistics.median(preparations)
    spread = (max(bare) - min(bare)) / network
    print(
        f"{name:10} batch {count:3}: scoring {scoring:.3f} s, network {network:.3f} s (spread {spread:.0%}), "
        f"ratio {scoring / network:.3f}; preparing {preparing:.3f} s; references encoded once"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 12])
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        dino, clip = build(Path(folder))
        dino_seg = DinoSeg(DinoEncoder(dino, options.device), None, masks="none")
        text, image = (load_reward(name, clip, device=options.device) for name in ("clip", "clip-i"))
    print(f"threads {torch.get_num_threads()}, {options.repeats} repeats, on {options.device}, target 1.15")
    dino: Any = dino_seg.encoder
    dino.processor = watched = Watched(dino.processor)
    for count in options.batches:
        measure("DINOv2-B", dino_seg, watched, lambda x: dino.model(x).last_hidden_state, count, options)
    for name, reward in (("CLIP-T B", text), ("CLIP-I B", image)):
        encoder: Any = reward.encoder  # pyright: ignore
        encoder.processor = watched = Watched(encoder.processor)
        for count in options.batches:
            measure(name, reward, watched, encoder.model.get_image_features, count, options)


if __name__ == "__main__":
    main()
