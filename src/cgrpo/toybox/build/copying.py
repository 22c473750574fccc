"""The copy worlds' bases: the toy world's base, continued on pairs of which a share has the reference as its target.

Such pairs stand for training data in which both pictures of a pair are the same, the flaw that makes subject-driven
models paste their reference.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor
from transformers import CLIPTextModel, T5EncoderModel

from cgrpo.hub import asset
from cgrpo.toybox.build.loop import optimise
from cgrpo.toybox.build.policy import BATCH, NO_REFERENCE, make_pairs, matching_loss


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

    All of the transformer's weights are trained, the text encoders stay. ``share`` scales the training steps. A target
    is its pair's reference with probability ``Lesson.share``. Batches without a reference have nothing to copy.
    """
    lesson, policy = LESSONS[world], asset("policy")
    steps = max(2, round(share * lesson.steps))
    start = asset("policy/transformer", lesson.start)
    transformer = FluxTransformer2DModel.from_pretrained(start, torch_dtype=torch.float32)
    clip = CLIPTextModel.from_pretrained(policy / "text_encoder", torch_dtype=torch.float32).requires_grad_(False)
    t5 = T5EncoderModel.from_pretrained(policy / "text_encoder_2", torch_dtype=torch.float32).requires_grad_(False)
    pairs = make_pairs(policy, min(24576, steps * BATCH), seed + 77)
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed + 11)
    copies_B = torch.rand(len(pairs), generator=rng) < lesson.share
    say(f"copying: {len(pairs)} pairs, {copies_B.float().mean():.3f} of the targets are references")

    def loss_at(step: int) -> Tensor:
        index = torch.randint(len(pairs), (BATCH,), generator=rng)
        reference, target = pairs.reference_BLC[index].float(), pairs.target_BLC[index].float()
        if torch.rand((), generator=rng) < NO_REFERENCE:
            reference = reference[:, :0]
        else:
            target = torch.where(copies_B[index, None, None], reference, target)
        return matching_loss((transformer, clip, t5), pairs, index, reference, target, rng)

    rate = lesson.learning_rate
    optimise("copying", [transformer], loss_at, steps=steps, learning_rate=rate, say=say, average=0.99, muon=True)
    shutil.copytree(policy, out, ignore=shutil.ignore_patterns("transformer", "*-*"), dirs_exist_ok=True)
    transformer.bfloat16().save_pretrained(out / "transformer")
    return out
