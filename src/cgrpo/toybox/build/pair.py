"""The pair world's base and scorers: what it has of its own; the rest is the toy world's.

The base is the toy world's, continued by supervised fine-tuning on pictures of two subjects. A LoRA of its transformer
and its text encoders, which learn further words, are all that is stored.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextModel, T5EncoderModel

from cgrpo.hub import asset
from cgrpo.policies.adapters.files import Origin
from cgrpo.policies.adapters.layers import add_adapter, merge_start, save_adapter
from cgrpo.policies.flux.family import FAMILY
from cgrpo.rewards.base import to_pictures
from cgrpo.toybox import drawing, pair
from cgrpo.toybox.build.loop import optimise
from cgrpo.toybox.build.policy import (
    NO_REFERENCE,
    Pairs,
    build_tokenizer,
    encoder,
    matching_loss,
    token_ids,
    token_weights,
    vocabulary,
)
from cgrpo.toybox.build.scorers import new_clip, pixel_values, train_segmenter, worn
from cgrpo.toybox.world import SHAPES

Say = Callable[[str], None]
STEPS, BATCH, RATE, RANK = 750, 32, 3e-3, 12
EVERY_LAYER = (
    r"(x_embedder|context_embedder|time_text_embed\.text_embedder\.linear_[12]|norm_out\.linear|proj_out"
    r"|(single_)?transformer_blocks\.\d+\.(attn\.(to_q|to_k|to_v|to_out\.0|add_[qkv]_proj|to_add_out)"
    r"|ff(_context)?\.net\.(0\.proj|2)|norm1(_context)?\.linear|norm\.linear|proj_mlp|proj_out))"
)


def words() -> list[str]:
    """The toy world's vocabulary, then the pair world's further words."""
    known = vocabulary()
    further = {word for relation in pair.RELATIONS for word in relation.split()} | set(SHAPES)
    return [*known, *sorted(further - set(known))]


def build_pair(out: Path, seed: int, share: float, say: Say) -> Path:
    """Into ``out``: policy/ for policy.path, adapter/ (the same as a LoRA of the toy base), segmenter/ and clip/.

    ``share`` scales the training steps. Returns ``out``.
    """
    build_pair_policy(out, seed, max(2, round(share * STEPS)), say)
    build_pair_segmenter(out / "segmenter", seed, max(2, round(share * 500)), say)
    build_pair_clip(out / "clip", seed, max(2, round(share * 1500)), say)
    return out


def build_pair_policy(out: Path, seed: int, steps: int, say: Say) -> None:
    """The toy world's base, taught two subjects; see ``build_pair``."""
    policy, folder = asset("policy"), out / "policy"
    shutil.copytree(policy, folder, ignore=shutil.ignore_patterns("*-*", "transformer"), dirs_exist_ok=True)
    layout = FAMILY.layout
    assert layout is not None
    pairs = make_couples(folder, min(8192, steps * BATCH), seed + 78)
    say(f"pair: {len(pairs)} pictures of two subjects drawn and encoded")
    transformer = FluxTransformer2DModel.from_pretrained(policy / "transformer", torch_dtype=torch.float32)
    add_adapter(transformer, RANK, seed, replace(layout, targets=EVERY_LAYER, fused=False))
    torch.manual_seed(seed)
    clip = CLIPTextModel.from_pretrained(policy / "text_encoder", torch_dtype=torch.float32)
    t5 = T5EncoderModel.from_pretrained(policy / "text_encoder_2", torch_dtype=torch.float32)
    for model in (clip, t5):
        model.resize_token_embeddings(len(words()), mean_resizing=False)
    rng = torch.Generator().manual_seed(seed + 12)

    def loss_at(step: int) -> Tensor:
        index = torch.randint(len(pairs), (BATCH,), generator=rng)
        reference, target = pairs.reference_BLC[index].float(), pairs.target_BLC[index].float()
        if torch.rand((), generator=rng) < NO_REFERENCE:
            reference = reference[:, :0]
        return matching_loss((transformer, clip, t5), pairs, index, reference, target, rng)

    models: list[nn.Module] = [transformer, clip, t5]
    optimise("pair", models, loss_at, steps=steps, learning_rate=RATE, say=say, average=0.995, muon=True)
    save_adapter(transformer.bfloat16(), out / "adapter", origin=Origin("", ""))
    clip.bfloat16().save_pretrained(folder / "text_encoder")
    t5.bfloat16().save_pretrained(folder / "text_encoder_2")
    whole = FluxTransformer2DModel.from_pretrained(policy / "transformer", torch_dtype=torch.float32)
    merge_start(whole, out / "adapter", layout)
    whole.bfloat16().save_pretrained(folder / "transformer")


def make_couples(folder: Path, count: int, seed: int) -> Pairs:
    """``count`` training pairs of the training split with ``pair.flawed``'s flaws, references in either order."""
    rng = torch.Generator().manual_seed(seed)
    encode = encoder(folder / "vae")
    clip = build_tokenizer(folder / "tokenizer", begin=True, words=words())
    t5 = build_tokenizer(folder / "tokenizer_2", begin=False, words=words())
    columns: list[list[Tensor]] = [[], [], [], [], []]
    for _ in range(0, count, 256):
        first, second = pair.sample_couples(256, rng)
        prompts = pair.sample_prompts(256, rng)
        one, two, asked, shown_B2 = pair.flawed(first, second, prompts, rng)
        texts = prompts.texts(first, second)
        references = [encode(drawing.draw_references(subjects, rng)[0]) for subjects in (first, second)]
        swapped_B11 = (torch.rand(256, generator=rng) < 0.5)[:, None, None]
        columns[0].append(torch.where(swapped_B11, torch.cat(references[::-1], 1), torch.cat(references, 1)))
        columns[1].append(encode(pair.draw(one, two, asked, rng, shown_B2)[0]))
        columns[2].append(token_ids(clip, texts))
        columns[3].append(token_ids(t5, texts))
        apart_B2 = pair.SHIFT * torch.tensor(list(pair.RELATIONS.values()))[prompts.relation_B]
        radius_B = torch.full((256,), pair.RADIUS)
        columns[4].append((token_weights(apart_B2, radius_B) + token_weights(-apart_B2, radius_B)) / 2)
    return Pairs(*(torch.cat(column) for column in columns))


def build_pair_segmenter(out: Path, seed: int, steps: int, say: Say) -> None:
    """A Segformer of the toys, also of flawed pictures; the strip between two that touch belongs to the scene."""
    count, rng = min(8192, 64 * steps), torch.Generator().manual_seed(seed + 110)
    vae = AutoencoderKL.from_pretrained(asset("policy/vae"), torch_dtype=torch.float32)
    pictures, masks = [], []
    for chunk in range(0, count, 256):
        first, second = pair.sample_couples(256, rng)
        if chunk % 1024 == 0:
            picture, mask = drawing.draw_references(first, rng)
            mask_B2 = torch.stack([mask, 0 * mask], 1) > 0.5
        else:
            scene = pair.flawed(first, second, pair.sample_prompts(256, rng, split=None), rng)
            picture, share_B2 = pair.draw(*scene[:3], rng, scene[3])
            mask_B2 = share_B2 > 0.5
        near_B2 = F.max_pool2d(mask_B2.float(), 3, stride=1, padding=1) > 0
        masks.append(mask_B2.any(1) & ~near_B2.all(1))
        pictures.append(as_bytes(worn(vae, picture, rng)))
    train_segmenter(out, torch.cat(pictures), torch.cat(masks), seed, steps, say, sizes=(32, 40, 56))


def as_bytes(pictures_NCHW: Tensor) -> Tensor:
    """Float [N, 3, H, W] in [0, 1] -> uint8 [N, H, W, 3]."""
    return (pictures_NCHW * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


class Pool:
    """Worn pictures of the pair world, and texts that describe them: rightly, and with the relation turned round."""

    def __init__(self, vae_folder: Path, count: int, seed: int):
        rng = torch.Generator().manual_seed(seed)
        vae = AutoencoderKL.from_pretrained(vae_folder, torch_dtype=torch.float32)
        pictures = []
        self.texts: list[str] = []
        self.wrong: list[str] = []
        for _ in range(0, count, 256):
            first, second = pair.sample_couples(256, rng)
            prompts = pair.sample_prompts(256, rng, split=None)
            picture = pair.draw(first, second, prompts, rng)[0]
            pictures.append(as_bytes(worn(vae, picture, rng)))
            self.texts += prompts.texts(first, second)
            self.wrong += replace(prompts, relation_B=prompts.relation_B ^ 1).texts(first, second)
        self.images_NHWC = torch.cat(pictures)


def build_pair_clip(out: Path, seed: int, steps: int, say: Say) -> None:
    """A CLIP trained by contrast with the batch's captions, and with each picture's own, its relation turned round."""
    model, processor, tokenizer = new_clip(out, words(), seed, width=72, inner=160)
    pool = Pool(asset("policy/vae"), min(16384, 128 * steps), seed + 130)
    pixels = pixel_values(processor, to_pictures(pool.images_NHWC))
    count, texts = len(pixels), pool.texts + pool.wrong
    tokens = tokenizer(texts, padding="max_length", return_tensors="pt")
    ids, mask = tokens["input_ids"], tokens["attention_mask"]
    numbers: dict[tuple[str, ...], int] = {}
    meaning = torch.tensor([numbers.setdefault(_meaning(text), len(numbers)) for text in texts])
    rng = torch.Generator().manual_seed(seed)

    def loss_at(step: int) -> Tensor:
        index = torch.randint(count, (128,), generator=rng)
        both = torch.cat([index, index + count])
        output = model(input_ids=ids[both], pixel_values=pixels[index].float(), attention_mask=mask[both])
        same = (meaning[index][:, None] == meaning[both][None]).float()
        logits = output.logits_per_image.float()
        by_text, wanted = logits.T[:128], same[:, :128]
        return (
            F.cross_entropy(logits, same / same.sum(1, keepdim=True))
            + F.cross_entropy(by_text, wanted / wanted.sum(1, keepdim=True))
        ) / 2

    optimise("clip", [model.train()], loss_at, steps=steps, learning_rate=1e-3, say=say, average=0.998)
    model.half().save_pretrained(out)


def _meaning(text: str) -> tuple[str, ...]:
    """Equal for "a star left of a heart at night" and "a heart right of a star at night"."""
    relation = next(relation for relation in pair.RELATIONS if f" {relation} " in text)
    first, rest = text.split(f" {relation} a ")
    second, scene = rest.split(" ", 1)
    opposite = {"right of": "left of", "below": "above"}
    if relation in opposite:
        first, second, relation = f"a {second}", first.removeprefix("a "), opposite[relation]
    return first, relation, second, scene
