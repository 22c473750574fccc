"""The copy worlds' bases: the toy world's base, continued on pairs of which a share has the reference as its target.

Such pairs stand for training data in which both pictures of a pair are the same, the flaw that makes subject-driven
models paste their reference.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor
from transformers import CLIPTextModel, T5EncoderModel

from cgrpo.hub import asset
from cgrpo.section import TOYBOX_POLICIES
from cgrpo.toybox.build.loop import optimise
from cgrpo.toybox.build.policy import NO_REFERENCE, make_pairs, matching_loss


@dataclass(frozen=True)
class Lesson:
    """What the policy ``start`` learns: ``share`` of the targets are references."""

    start: str
    share: float
    steps: int
    learning_rate: float


LESSONS = {"copy": Lesson("toybox", 0.15, 863, 7e-4), "copy-majority": Lesson("toybox-copy", 0.6, 240, 5e-4)}


def build_copying(world: str, out: Path, seed: int, share: float, say: Callable[[str], None]) -> Path:
    """A whole policy folder ``out`` for policy.path: one of the package's own, continued. Returns ``out``.

    ``share`` scales the training steps.
    """
    lesson = LESSONS[world]
    start = asset("policy") / TOYBOX_POLICIES[lesson.start]
    transformer = FluxTransformer2DModel.from_pretrained(start, torch_dtype=torch.float32)
    continue_copying(transformer, seed, max(2, round(share * lesson.steps)), lesson, say)
    shutil.copytree(asset("policy"), out, ignore=shutil.ignore_patterns("transformer*"), dirs_exist_ok=True)
    transformer.bfloat16().save_pretrained(out / "transformer")
    return out


def continue_copying(
    transformer: FluxTransformer2DModel,
    seed: int,
    steps: int,
    lesson: Lesson,
    say: Callable[[str], None],
    *,
    pool: int = 24576,
    dial: float = 0.25,
    batch: int = 64,
) -> None:
    """Train all of the transformer's weights; the package's text encoders stay.

    A target is its pair's reference with probability ``lesson.share``. Batches without a reference have nothing to
    copy.
    """
    policy = asset("policy")
    pairs = make_pairs(policy, min(pool, steps * batch), seed + 77, dial)
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed + 11)
    copies_B = torch.rand(len(pairs), generator=rng) < lesson.share
    say(f"copying: {len(pairs)} pairs, {copies_B.float().mean():.3f} of the targets are references")
    clip = CLIPTextModel.from_pretrained(policy / "text_encoder", torch_dtype=torch.float32).requires_grad_(False)
    t5 = T5EncoderModel.from_pretrained(policy / "text_encoder_2", torch_dtype=torch.float32).requires_grad_(False)

    def loss_at(step: int) -> Tensor:
        index = torch.randint(len(pairs), (batch,), generator=rng)
        reference, target = pairs.reference_BLC[index].float(), pairs.target_BLC[index].float()
        if torch.rand((), generator=rng) < NO_REFERENCE:
            reference = reference[:, :0]
        else:
            target = torch.where(copies_B[index, None, None], reference, target)
        return matching_loss((transformer, clip, t5), pairs, index, reference, target, rng)

    optimise(
        "copying",
        [transformer],
        loss_at,
        steps=steps,
        learning_rate=lesson.learning_rate,
        say=say,
        average=0.99,
        muon=True,
    )
