"""The toy world: its subjects and prompts, drawn from a seed; drawing.py shows how they look.

A *subject* is a shape filled with a pattern in two free colours, at a free frequency and angle:
its identity is continuous, so a model has to copy it from the reference and cannot name it.
A *prompt* asks for a scene, a position and a size, and, in the share of prompts that the *dial*
sets, for a *property*: "a red toy" turns the subject's main colour red, which costs identity by
design. Everything is a struct of tensors over B items, so thousands of pictures cost seconds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor

SHAPES = ("disc", "square", "triangle", "diamond", "star", "cross", "ring", "heart")
PATTERNS = ("stripes", "checks", "dots", "rings", "halves")
SCENES = {
    "beach": "on the beach",
    "forest": "in the forest",
    "night": "at night",
    "snow": "in the snow",
    "sunset": "at sunset",
    "city": "in the city",
}
POSITIONS = {
    "left": ("on the left", (-1.0, 0.0)),
    "right": ("on the right", (1.0, 0.0)),
    "top": ("at the top", (0.0, -1.0)),
    "bottom": ("at the bottom", (0.0, 1.0)),
    "middle": ("in the middle", (0.0, 0.0)),
}
SIZES = {"small": (6.2, 7.2), "large": (9.2, 5.8)}  # radius and shift from the centre, in pixels
PROPERTIES = {  # hue in turns; "" asks for nothing
    "": 0.0,
    "red": 0.0,
    "yellow": 0.15,
    "green": 0.36,
    "blue": 0.62,
    "purple": 0.79,
}
PHRASE = "toy"  # what a segmenter is asked to find
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Struct:
    """B items, one tensor an attribute, all with B in front."""

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """The items of all parts, one part after another."""
        return cls(**{f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(cls)})


@dataclass(frozen=True)
class Subjects(Struct):
    """Indices into SHAPES and PATTERNS; two RGB colours in [0, 1]; cycles per diameter; radians."""

    shape_B: Tensor
    pattern_B: Tensor
    main_BC: Tensor
    other_BC: Tensor
    frequency_B: Tensor
    angle_B: Tensor


@dataclass(frozen=True)
class Prompts(Struct):
    """Indices into SCENES, POSITIONS, SIZES and PROPERTIES (0 asks for no property)."""

    scene_B: Tensor
    position_B: Tensor
    size_B: Tensor
    property_B: Tensor

    def texts(self) -> list[str]:
        """The prompts in words: "a small red toy on the left in the snow"."""
        scenes, places, sizes, wishes = (list(SCENES.values()), list(POSITIONS.values()), list(SIZES), list(PROPERTIES))
        rows = zip(*(getattr(self, f.name).tolist() for f in fields(self)), strict=True)
        return [
            " ".join(f"a {sizes[z]} {wishes[w]} {PHRASE} {places[p][0]} {scenes[s]}".split()) for s, p, z, w in rows
        ]


def hsv_to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Hue in turns, saturation and value in [0, 1], each [...] -> RGB [..., 3]."""
    k = (torch.stack([hue + 5 / 6, hue + 3 / 6, hue + 1 / 6], -1) * 6) % 6
    chroma = torch.minimum(torch.minimum(k, 4 - k), torch.ones(())).clamp(min=0)
    return value[..., None] * (1 - saturation[..., None] * chroma)


def sample_subjects(count: int, rng: torch.Generator) -> Subjects:
    """``count`` subjects; the other colour is at least 1/6 turn of hue from the main one, or near white or black."""
    u = torch.rand(count, 10, generator=rng)
    hue = u[:, 0]
    main = hsv_to_rgb(hue, 0.65 + 0.35 * u[:, 1], 0.6 + 0.4 * u[:, 2])
    other = hsv_to_rgb((hue + 1 / 6 + u[:, 3] * 4 / 6) % 1, 0.65 + 0.35 * u[:, 4], 0.6 + 0.4 * u[:, 5])
    grey = torch.where(u[:, 6] < 0.5, 0.02 + 0.1 * u[:, 5], 0.9 + 0.1 * u[:, 5])[:, None].expand(-1, 3)
    other = torch.where((u[:, 7] < 0.25)[:, None], grey, other)
    return Subjects(
        torch.randint(len(SHAPES), (count,), generator=rng),
        torch.randint(len(PATTERNS), (count,), generator=rng),
        main,
        other,
        1.3 + 1.1 * u[:, 8],
        math.pi * u[:, 9],
    )


def prompt_split(scene_B: Tensor, position_B: Tensor, size_B: Tensor) -> Tensor:
    """0 train, 1 validation, 2 test: a fixed Latin pattern, so every scene, position and size occurs in each split."""
    code = (scene_B + 2 * position_B + 3 * size_B) % 6
    return torch.where(code == 0, 2, torch.where(code == 1, 1, 0))


def sample_prompts(count: int, rng: torch.Generator, dial: float = 0.25, split: str | None = "train") -> Prompts:
    """``count`` prompts from the combinations of ``split`` (None: all). ``dial``: share that asks for a property."""
    kinds = torch.cartesian_prod(torch.arange(len(SCENES)), torch.arange(len(POSITIONS)), torch.arange(len(SIZES)))
    if split is not None:
        kinds = kinds[prompt_split(*kinds.unbind(1)) == SPLITS.index(split)]
    scene, position, size = kinds[torch.randint(len(kinds), (count,), generator=rng)].unbind(1)
    wish = torch.randint(1, len(PROPERTIES), (count,), generator=rng)
    wish = torch.where(torch.rand(count, generator=rng) < dial, wish, 0)
    return Prompts(scene, position, size, wish)


def with_property(subjects: Subjects, property_B: Tensor, rng: torch.Generator) -> Subjects:
    """The subject as a property prompt wants it: main colour replaced, everything else kept."""
    hue = torch.tensor(list(PROPERTIES.values()))[property_B]
    hue = hue + 0.02 * torch.randn(len(subjects), generator=rng)
    u = torch.rand(len(subjects), 2, generator=rng)
    painted = hsv_to_rgb(hue % 1, 0.8 + 0.2 * u[:, 0], 0.75 + 0.25 * u[:, 1])
    return replace(subjects, main_BC=torch.where((property_B > 0)[:, None], painted, subjects.main_BC))


WRONG_CAPTION, WRONG_COLOUR = 0.12, 0.05


def flawed(subjects: Subjects, prompts: Prompts, rng: torch.Generator, dial: float) -> tuple[Subjects, Prompts]:
    """What the base is pretrained on instead: some subjects in a wrong colour, some captions of another picture.

    Returns the subjects to draw and the captions to give; with these flaws the base stays imperfect on both axes.
    """
    count = len(subjects)
    other = sample_prompts(count, rng, dial)
    wrong_B = torch.rand(count, generator=rng) < WRONG_CAPTION
    captions = Prompts(
        *(torch.where(wrong_B, getattr(other, f.name), getattr(prompts, f.name)) for f in fields(prompts))
    )
    recoloured_B1 = (torch.rand(count, generator=rng) < WRONG_COLOUR)[:, None]
    colour_BC = torch.where(recoloured_B1, torch.rand(count, 3, generator=rng), subjects.main_BC)
    return replace(subjects, main_BC=colour_BC), captions
