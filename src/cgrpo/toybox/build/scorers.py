"""The toybox's reward and judge networks: segmenter, DINOv2, CLIP and the judges' reader.

All but the segmenter learn on *worn* pictures: half of them went through the autoencoder with a
little latent noise, so that what a generator does to a picture is nothing new to them.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    BitImageProcessorPil,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    ConvNextImageProcessorPil,
    Dinov2Config,
    Dinov2Model,
    ResNetConfig,
    ResNetForImageClassification,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessorPil,
)

from cgrpo.rewards.base import to_pictures
from cgrpo.rewards.regions import subject_crop
from cgrpo.rewards.segmenters import SemanticSegmenter
from cgrpo.toybox import drawing, world
from cgrpo.toybox.build.loop import optimise
from cgrpo.toybox.build.policy import LENGTH, SPECIAL, build_tokenizer, vocabulary
from cgrpo.toybox.reader import SLICES

Say = Callable[[str], None]
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class Pool:
    """Worn pictures of the world with their ground truth; a quarter are references."""

    def __init__(self, folder: Path, count: int, seed: int, dial: float = 0.4, references: bool = True):
        rng = torch.Generator().manual_seed(seed)
        vae = AutoencoderKL.from_pretrained(folder / "policy" / "vae", torch_dtype=torch.float32)
        pictures, masks, subjects, prompts = [], [], [], []
        for first in range(0, count, 256):
            these = world.sample_subjects(256, rng)
            wanted = world.sample_prompts(256, rng, dial, split=None)
            if references and first % 1024 == 0:
                picture, mask = drawing.draw_references(these, rng)
            else:
                these = world.with_property(these, wanted.property_B, rng)
                plain = world.Prompts(wanted.scene_B, wanted.position_B, wanted.size_B, 0 * wanted.property_B)
                picture, mask = drawing.draw(these, plain, rng)
            pictures.append((worn(vae, picture, rng) * 255).round().to(torch.uint8).permute(0, 2, 3, 1))
            masks.append(mask > 0.5)
            subjects.append(these)
            prompts.append(wanted)
        self.images_NHWC, self.masks_NHW = torch.cat(pictures), torch.cat(masks)
        self.subjects, self.prompts = world.Subjects.join(subjects), world.Prompts.join(prompts)

    def __len__(self) -> int:
        return len(self.images_NHWC)


@torch.no_grad()
def worn(vae: AutoencoderKL, pictures: Tensor, rng: torch.Generator) -> Tensor:
    half = len(pictures) // 2
    z = vae.encode(pictures[:half] * 2 - 1, return_dict=False)[0].mean
    amount = 0.25 * z.std() * torch.rand(half, 1, 1, 1, generator=rng)
    z = z + amount * torch.randn(z.shape, generator=rng)
    decoded = vae.decode(z, return_dict=False)[0]  # pyright: ignore
    return torch.cat([((decoded + 1) / 2).clamp(0, 1), pictures[half:]])


def pixel_values(processor, pictures: list) -> Tensor:
    parts = [
        processor(images=pictures[i : i + 512], return_tensors="pt")["pixel_values"].half()
        for i in range(0, len(pictures), 512)
    ]
    return torch.cat(parts)


def _batches(count: int, batch: int, seed: int) -> Callable[[], Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return lambda: torch.randint(count, (batch,), generator=rng)


def build_segmenter(folder: Path, seed: int, steps: int, say: Say) -> None:
    """A small Segformer with two classes, ``background`` and the toy, on the rendered masks."""
    pool = Pool(folder, min(16384, 64 * steps), seed + 10)
    train_segmenter(folder / "segmenter", pool.images_NHWC, pool.masks_NHW, seed, steps, say)


def train_segmenter(
    out: Path,
    images_NHWC: Tensor,
    masks_NHW: Tensor,
    seed: int,
    steps: int,
    say: Say,
    sizes: Sequence[int] = (32, 48, 64),
) -> None:
    """A Segformer of the toy on these pictures and masks, saved to ``out``; ``sizes``: widths of its stages."""
    torch.manual_seed(seed)
    processor = SegformerImageProcessorPil(size={"height": 32, "width": 32}, image_mean=MEAN, image_std=STD)
    processor.save_pretrained(out)
    names = {0: "background", 1: world.PHRASE}
    model = SegformerForSemanticSegmentation(
        SegformerConfig(
            num_encoder_blocks=3,
            strides=[2, 2, 2],
            patch_sizes=[5, 3, 3],
            sr_ratios=[4, 2, 1],
            hidden_sizes=list(sizes),
            depths=[1, 1, 1],
            num_attention_heads=[1, 2, 4],
            mlp_ratios=[2, 2, 2],
            decoder_hidden_size=sizes[-1],
            drop_path_rate=0.0,
            classifier_dropout_prob=0.0,
            id2label=names,
            label2id={name: index for index, name in names.items()},
        )
    )
    pixels = pixel_values(processor, to_pictures(images_NHWC))
    draw = _batches(len(pixels), 64, seed)

    def loss_at(step: int) -> Tensor:
        index = draw()
        logits = F.interpolate(model(pixels[index].float()).logits, size=32, mode="bilinear")
        return F.cross_entropy(logits.float(), masks_NHW[index].long())

    optimise("segmenter", [model.train()], loss_at, steps=steps, learning_rate=3e-3, say=say, average=0.995)
    model.half().save_pretrained(out)


def subject_code(subjects: world.Subjects) -> Tensor:
    """What makes two subjects alike, as vectors [B, 28] whose cosine grades it: shape, pattern, colours, direction.

    Which colour is the main one can be seen in dots and rings only; so colours enter by their mean and by the
    outer product of their difference, which forgets its sign, and the difference itself only for those two.
    """
    shape = F.one_hot(subjects.shape_B, len(world.SHAPES)) - 1 / len(world.SHAPES)
    pattern = F.one_hot(subjects.pattern_B, len(world.PATTERNS)) - 1 / len(world.PATTERNS)
    fold = torch.tensor([2.0, 4.0, 4.0, 0.0, 2.0])[subjects.pattern_B]  # rotations that change nothing; rings: all
    turn = torch.stack([(fold * subjects.angle_B).cos(), (fold * subjects.angle_B).sin()], -1) * (fold > 0)[:, None]
    mean = (subjects.main_BC + subjects.other_BC) / 2 - 0.5
    apart = subjects.main_BC - subjects.other_BC
    unsigned = (
        apart[:, [0, 1, 2, 0, 0, 1]] * apart[:, [0, 1, 2, 1, 2, 2]] * torch.tensor([1, 1, 1, 2**0.5, 2**0.5, 2**0.5])
    )
    unsigned = unsigned - torch.tensor([0.2, 0.2, 0.2, 0.0, 0.0, 0.0])
    ordered = torch.isin(subjects.pattern_B, torch.tensor([2, 3]))[:, None]
    return torch.cat([shape, 0.8 * pattern, 3.2 * mean, 1.8 * unsigned, 0.9 * apart * ordered, 0.25 * turn], 1)


def build_dino(folder: Path, seed: int, steps: int, say: Say) -> None:
    """A DINOv2 whose CLS token regresses the subject's code, on crops made by the segmenter.

    Regression rather than a contrastive loss: its cosine grades near misses instead of refusing them.
    """
    torch.manual_seed(seed)
    out = folder / "dino"
    processor = BitImageProcessorPil(
        size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}, resample=3, image_mean=MEAN, image_std=STD
    )
    processor.save_pretrained(out)
    model = Dinov2Model(
        Dinov2Config(image_size=32, patch_size=4, hidden_size=96, num_hidden_layers=3, num_attention_heads=4)
    )
    pool = Pool(folder, min(32768, 64 * steps), seed + 20)
    segmenter, pictures = SemanticSegmenter(folder / "segmenter"), to_pictures(pool.images_NHWC)
    crops = []
    for first in range(0, len(pictures), 256):
        part = pictures[first : first + 256]
        masks = segmenter.segment(part, [world.PHRASE] * len(part))
        crops += [subject_crop(picture, mask) for picture, mask in zip(part, masks, strict=True)]
    pixels = pixel_values(processor, crops)
    say(f"dino: {len(pixels)} crops")
    code = subject_code(pool.subjects)
    basis = torch.linalg.qr(torch.randn(96, code.shape[1], generator=torch.Generator().manual_seed(seed)))[0]
    wanted, draw = F.normalize(code @ basis.T, dim=-1), _batches(len(pool), 64, seed)

    def loss_at(step: int) -> Tensor:
        index = draw()
        cls = model(pixels[index].float()).last_hidden_state[:, 0].float()
        return (1 - (F.normalize(cls, dim=-1) * wanted[index]).sum(-1)).mean()

    optimise("dino", [model.train()], loss_at, steps=steps, learning_rate=1e-3, say=say, average=0.998)
    model.half().save_pretrained(out)


def build_clip(folder: Path, seed: int, steps: int, say: Say) -> None:
    """A CLIP trained by contrast, equal captions counting as matches."""
    out = folder / "clip"
    model, processor, tokenizer = new_clip(out, vocabulary(), seed)
    pool = Pool(folder, min(32768, 128 * steps), seed + 30, references=False)
    pixels = pixel_values(processor, to_pictures(pool.images_NHWC))
    tokens = tokenizer(pool.prompts.texts(), padding="max_length", return_tensors="pt")
    ids, mask, draw = tokens["input_ids"], tokens["attention_mask"], _batches(len(pool), 128, seed)

    def loss_at(step: int) -> Tensor:
        index = draw()
        output = model(input_ids=ids[index], pixel_values=pixels[index].float(), attention_mask=mask[index])
        same = (ids[index][:, None] == ids[index][None]).all(-1).float()
        wanted = same / same.sum(1, keepdim=True)
        logits = output.logits_per_image.float()
        return (F.cross_entropy(logits, wanted) + F.cross_entropy(logits.T, wanted)) / 2

    optimise("clip", [model.train()], loss_at, steps=steps, learning_rate=1e-3, say=say, average=0.998)
    model.half().save_pretrained(out)


def new_clip(out: Path, words: Sequence[str], seed: int, width: int = 96, inner: int = 256) -> tuple[Any, Any, Any]:
    """A random CLIP, its image processor and a tokenizer of ``words``; the latter two saved to ``out``."""
    torch.manual_seed(seed)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor.save_pretrained(out)
    tokenizer, (pad, begin, _, end) = build_tokenizer(out, begin=True, words=words), range(len(SPECIAL))
    text = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4)
    vision = dict(image_size=32, patch_size=4, hidden_size=width, intermediate_size=inner, num_hidden_layers=3)
    model = CLIPModel(
        CLIPConfig(
            text_config={
                **text,
                "vocab_size": len(words),
                "max_position_embeddings": LENGTH,
                "pad_token_id": pad,
                "bos_token_id": begin,
                "eos_token_id": end,
            },
            vision_config={**vision, "num_attention_heads": 4},
            projection_dim=48,
        )
    )
    return model, processor, tokenizer


def named_property(main_BC: Tensor) -> Tensor:
    """The property a main colour would be called by: index into PROPERTIES, 0 where none fits."""
    high, low = main_BC.max(-1).values, main_BC.min(-1).values
    u = (main_BC - low[:, None]) / (high - low)[:, None].clamp(min=1e-6)
    hue = torch.atan2(math.sqrt(3) * (u[:, 1] - u[:, 2]), 2 * u[:, 0] - u[:, 1] - u[:, 2]) / (2 * math.pi) % 1
    hues = torch.tensor(list(world.PROPERTIES.values())[1:])
    distance = ((hue[:, None] - hues + 0.5) % 1 - 0.5).abs()
    fits = (distance.min(1).values < 0.06) & (high - low > 0.35 * high) & (high > 0.45)
    return torch.where(fits, distance.argmin(1) + 1, 0)


def build_reader(folder: Path, seed: int, steps: int, say: Say) -> None:
    """The judges' ResNet: cross-entropy on the named factors, squared error on the colours."""
    torch.manual_seed(seed)
    out = folder / "reader"
    processor = ConvNextImageProcessorPil(
        size={"shortest_edge": 64}, crop_pct=1.0, resample=2, image_mean=MEAN, image_std=STD
    )
    processor.save_pretrained(out)
    model = ResNetForImageClassification(
        ResNetConfig(
            embedding_size=32,
            hidden_sizes=[48, 96, 128],
            depths=[2, 2, 1],
            layer_type="basic",
            num_labels=sum(SLICES.values()),  # pyright: ignore
        )
    )
    pool = Pool(folder, min(32768, 64 * steps), seed + 40, references=False)
    pictures, draw = to_pictures(pool.images_NHWC), _batches(len(pool), 64, seed)
    s, p = pool.subjects, pool.prompts
    labels = {
        "scene": p.scene_B,
        "position": p.position_B,
        "size": p.size_B,
        "property": named_property(s.main_BC),
        "shape": s.shape_B,
        "pattern": s.pattern_B,
    }

    colours = torch.stack([torch.cat([s.main_BC, s.other_BC], 1), torch.cat([s.other_BC, s.main_BC], 1)])

    def loss_at(step: int) -> Tensor:
        index = draw()
        pixels = processor(images=[pictures[i] for i in index], return_tensors="pt")["pixel_values"]
        seen = dict(zip(SLICES, model(pixels).logits.float().split(list(SLICES.values()), 1), strict=True))
        named = sum(F.cross_entropy(seen[name], label[index]) for name, label in labels.items())
        seen_BC = torch.cat([seen["one"], seen["two"]], 1)
        error_2B = (seen_BC - colours[:, index]).square().mean(-1)  # either way round
        return named + 40 * error_2B.amin(0).mean()

    optimise("reader", [model.train()], loss_at, steps=steps, learning_rate=2e-3, say=say)
    model.half().save_pretrained(out)
