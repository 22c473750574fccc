"""Can the toybox's rewards, judges and segmenter be trusted? Corrupted pictures, and masks on the base's own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cgrpo.algorithm import integrate
from cgrpo.data import ToyboxSource, derive
from cgrpo.evaluation.metrics import Scorer
from cgrpo.evaluation.statistics.paired import auc
from cgrpo.policies.base import Policy
from cgrpo.rewards import scored
from cgrpo.rewards.base import to_pictures
from cgrpo.rewards.segmenters import Segmenter
from cgrpo.toybox import drawing, world
from cgrpo.types import Batch


@dataclass(frozen=True)
class Truth:
    """The tasks' ground truth as structs of length N."""

    subjects: world.Subjects
    prompts: world.Prompts


def truth_of(source: ToyboxSource, count: int) -> Truth:
    cases = source.cases(range(count))
    return Truth(world.Subjects.join([c.subject for c in cases]), world.Prompts.join([c.prompt for c in cases]))


def _another(index_B: Tensor, choices: int, rng: torch.Generator, lowest: int = 0) -> Tensor:
    """Another index than the given one, at random."""
    span = choices - lowest
    return (index_B - lowest + torch.randint(1, span, index_B.shape, generator=rng)) % span + lowest


def _turn_hue(colour_BC: Tensor, turns: float) -> Tensor:
    """Rotate RGB colours about the grey axis by ``turns`` (a hue shift)."""
    angle = torch.tensor(turns * 2 * torch.pi)
    third = (1 - angle.cos()) / 3
    root = angle.sin() / 3**0.5
    diagonal, low, high = angle.cos() + third, third - root, third + root
    matrix = torch.stack([diagonal, low, high, high, diagonal, low, low, high, diagonal]).view(3, 3)
    return (colour_BC @ matrix.T).clamp(0, 1)


def _recoloured(truth: Truth, names: tuple[str, ...]) -> Truth:
    """The subject with some of its colours turned by 0.12 of the hue circle (43 degrees)."""
    turned = {name: _turn_hue(getattr(truth.subjects, name), 0.12) for name in names}
    return replace(truth, subjects=replace(truth.subjects, **turned))


def _with_prompt(truth: Truth, **prompt: Tensor) -> Truth:
    """Prompts with some of their fields replaced."""
    return replace(truth, prompts=replace(truth.prompts, **prompt))


CORRUPTIONS: dict[str, tuple[str, Callable[[Truth, torch.Generator], Truth]]] = {
    "wrong subject": ("identity", lambda t, rng: replace(t, subjects=world.sample_subjects(len(t.subjects), rng))),
    "near-miss colour": ("identity", lambda t, rng: _recoloured(t, ("main_BC", "other_BC"))),
    "near-miss main colour": ("identity", lambda t, rng: _recoloured(t, ("main_BC",))),
    "wrong scene": (
        "prompt",
        lambda t, rng: _with_prompt(t, scene_B=_another(t.prompts.scene_B, len(world.SCENES), rng)),
    ),
    "wrong position": (
        "prompt",
        lambda t, rng: _with_prompt(t, position_B=_another(t.prompts.position_B, len(world.POSITIONS), rng)),
    ),
    "property ignored": ("prompt", lambda t, rng: _with_prompt(t, property_B=0 * t.prompts.property_B)),
}


def ranking(
    source: ToyboxSource, count: int, scorers: dict[str, Scorer], policy: Policy
) -> dict[str, dict[str, float]]:
    """AUC of every reward and judge between right pictures and each corruption on its axis.

    Both go through the policy's autoencoder, as generated pictures do. Identity is judged on prompts
    without a property, "property ignored" on those with one.
    """
    batch, truth = source.batch(range(count)), truth_of(source, count)
    property_N = truth.prompts.property_B > 0
    right = _pictures(truth, policy, 0)
    judged = {name: s for name, s in scorers.items() if s.role != "guard"}
    right_N = {name: scored(name, s.score, right, batch) for name, s in judged.items()}
    table: dict[str, dict[str, float]] = {}
    for number, (name, (axis, corrupt)) in enumerate(CORRUPTIONS.items(), 1):
        wrong = _pictures(corrupt(truth, derive("corruption", name)), policy, number)
        judged_N = (
            property_N if name == "property ignored" else ~property_N if axis == "identity" else property_N | True
        )
        rows = judged_N.nonzero()[:, 0]
        table[name] = {
            scorer: auc(right_N[scorer][rows], scored(scorer, s.score, wrong, batch)[rows])
            for scorer, s in judged.items()
            if s.score.axis == axis
        }
    return table


def _pictures(truth: Truth, policy: Policy, number: int) -> Tensor:
    drawn, _ = drawing.draw(truth.subjects, truth.prompts, derive("corruption pictures", number))
    return policy.decode(policy.encode_targets(as_pictures(drawn)))


def as_pictures(drawn_NCHW: Tensor) -> list:
    return to_pictures((drawn_NCHW * 255).round().to(torch.uint8).permute(0, 2, 3, 1))


def segmenter_iou(
    source: ToyboxSource, count: int, segmenter: Segmenter, policy: Policy, sigmas: Tensor
) -> dict[str, float]:
    """Mean IoU against the rendered masks: on real pictures, and on the base's own.

    The base's pictures have no true mask; so real ones are noised half-way and finished by the base, which keeps
    the subject in its place while every pixel becomes the base's.
    """
    batch, truth = source.batch(range(count)), truth_of(source, count)
    drawn, masks = drawing.draw(truth.subjects, truth.prompts, derive("segmenter pictures"))
    real = as_pictures(drawn)
    start = int((sigmas >= 0.5).sum()) - 1
    x0_NLC = policy.encode_targets(real)
    noise = torch.randn(x0_NLC.shape, generator=derive("segmenter noise"))
    x_NLC = x0_NLC + sigmas[start] * (noise - x0_NLC)
    cond = policy.encode(batch)
    finished = policy.decode(integrate(functools.partial(policy.velocity, cond=cond), x_NLC, sigmas[start:]))
    true_NHW = (masks > 0.5).numpy()
    return {
        "real": _iou(segmenter, real, batch, true_NHW),
        "base": _iou(segmenter, to_pictures(finished), batch, true_NHW),
    }


def _iou(segmenter: Segmenter, pictures: list, batch: Batch, true_NHW: np.ndarray) -> float:
    masks = segmenter.segment(pictures, list(batch.subjects))
    shares = [
        0.0 if mask is None else float((mask & true).sum() / max((mask | true).sum(), 1))
        for mask, true in zip(masks, true_NHW, strict=True)
    ]
    return float(np.mean(shares))
