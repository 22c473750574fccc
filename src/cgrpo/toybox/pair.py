"""The pair world: pictures of two subjects in a relation, each copied from a reference of its own.

Subjects are the toy world's (world.py), told apart by their shapes' names: "a star left of a heart in the snow". The
two of a task have different shapes, and references come in either order, so that a model must read the prompt to know
which reference goes where. No prompt asks for a property: what competes here are the subjects and the relation.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cgrpo.toybox import drawing, world
from cgrpo.toybox.world import SCENES, SHAPES, Struct, Subjects

RELATIONS = {"left of": (-1.0, 0.0), "right of": (1.0, 0.0), "above": (0.0, -1.0), "below": (0.0, 1.0)}
"""Where the first subject lies, as seen from the second."""
RADIUS, SHIFT = 6.4, 7.6  # of a subject, and from the picture's centre, in pixels
WRONG = {"places": 0.05, "looks": 0.05, "colours": 0.06, "dropped": 0.04, "doubled": 0.05}
"""Shares of the base's training pairs with each flaw (``flawed``)."""
EVERYTHING = ("shape_B", "pattern_B", "main_BC", "other_BC", "frequency_B", "angle_B")


@dataclass(frozen=True)
class PairPrompts(Struct):
    """Indices into SCENES and RELATIONS."""

    scene_B: Tensor
    relation_B: Tensor

    def texts(self, first: Subjects, second: Subjects) -> list[str]:
        """The prompts in words, of subjects in the order that they are named."""
        scenes, relations = list(SCENES.values()), list(RELATIONS)
        rows = zip(first.shape_B, second.shape_B, self.relation_B, self.scene_B, strict=True)
        return [f"a {SHAPES[a]} {relations[r]} a {SHAPES[b]} {scenes[s]}" for a, b, r, s in rows]


@dataclass(frozen=True)
class PairCase:
    """What a judge knows of a task: both subjects in the references' order, as structs of length 1, and its prompt.

    ``named`` has the numbers of the references in the order in which the prompt names their subjects.
    """

    subjects: tuple[Subjects, Subjects]
    named: tuple[int, int]
    prompt: PairPrompts

    def in_prompt(self) -> tuple[Subjects, Subjects]:
        """The subjects in the order in which the prompt names them."""
        return self.subjects[self.named[0]], self.subjects[self.named[1]]

    def phrases(self) -> tuple[str, str]:
        """What a segmenter looks for, in the references' order: it is not told which toy is which."""
        return world.PHRASE, world.PHRASE

    def text(self) -> str:
        """The prompt in words."""
        return self.prompt.texts(*self.in_prompt())[0]


def sample_couples(count: int, rng: torch.Generator) -> tuple[Subjects, Subjects]:
    """``count`` pairs of subjects with different shapes."""
    first, second = world.sample_subjects(count, rng), world.sample_subjects(count, rng)
    turn_B = torch.randint(1, len(SHAPES), (count,), generator=rng)
    return first, replace(second, shape_B=(first.shape_B + turn_B) % len(SHAPES))


def sample_prompts(count: int, rng: torch.Generator, split: str | None = "train") -> PairPrompts:
    """``count`` prompts from the combinations of ``split`` (None: all); each scene and relation is in every split."""
    kinds = torch.cartesian_prod(torch.arange(len(SCENES)), torch.arange(len(RELATIONS)))
    if split is not None:
        code = kinds.sum(1) % len(SCENES)
        number = torch.where(code == 0, 2, torch.where(code == 1, 1, 0))
        kinds = kinds[number == world.SPLITS.index(split)]
    return PairPrompts(*kinds[torch.randint(len(kinds), (count,), generator=rng)].unbind(1))


def sample_case(subjects: torch.Generator, prompt: torch.Generator, split: str) -> PairCase:
    """One task: its subjects from one generator, the prompt and which subject it names first from the other."""
    couple, asked = sample_couples(1, subjects), sample_prompts(1, prompt, split)
    swapped = bool(torch.rand((), generator=prompt) < 0.5)
    return PairCase(couple, (1, 0) if swapped else (0, 1), asked)


def draw(
    first: Subjects, second: Subjects, prompts: PairPrompts, rng: torch.Generator, shown_B2: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """What prompts ask for: pictures [B, 3, 32, 32], and masks [B, 2, 32, 32] in the order of the prompt.

    ``shown_B2`` (bool) leaves out subjects that are False.
    """
    count = len(first)
    apart_B2 = SHIFT * torch.tensor(list(RELATIONS.values()))[prompts.relation_B]
    jitter = torch.rand(2, count, 3, generator=rng) - 0.5
    picture, masks = drawing.scenes(prompts.scene_B, rng), []
    for number, (subjects, side) in enumerate(((first, 1), (second, -1))):
        centre_B2, radius_B = side * apart_B2 + 1.6 * jitter[number, :, :2], RADIUS * (1 + 0.12 * jitter[number, :, 2])
        painted, inside = drawing.over(picture, subjects, centre_B2, radius_B)
        if shown_B2 is not None:
            seen = shown_B2[:, number, None, None].float()
            painted, inside = torch.lerp(picture, painted, seen[:, None]), inside * seen
        picture = painted
        masks.append(inside)
    pictures, mask_B2 = drawing.averaged(picture), drawing.averaged(torch.stack(masks, 1))
    return pictures.clamp(0, 1), mask_B2


def looks_of(shapes: Subjects, looks: Subjects, mask_B: Tensor) -> Subjects:
    """``shapes`` with the pattern, colours and direction of ``looks`` where ``mask_B`` says so; the shape stays."""
    return _where(shapes, looks, mask_B, EVERYTHING[1:])


def colours_of(subjects: Subjects, others: Subjects, mask_B: Tensor) -> Subjects:
    """``subjects`` in the colours of ``others`` where ``mask_B`` says so: a colour leaks."""
    return _where(subjects, others, mask_B, ("main_BC", "other_BC"))


def _where(ours: Subjects, theirs: Subjects, mask_B: Tensor, names: Sequence[str]) -> Subjects:
    mixed = {}
    for name in names:
        own, other = getattr(ours, name), getattr(theirs, name)
        mixed[name] = torch.where(mask_B if own.ndim == 1 else mask_B[:, None], other, own)
    return replace(ours, **mixed)


def flawed(
    first: Subjects, second: Subjects, prompts: PairPrompts, rng: torch.Generator
) -> tuple[Subjects, Subjects, PairPrompts, Tensor]:
    """What the base is trained on instead: subjects to draw, the prompt to draw them for, and which are shown [B, 2].

    Each pair has at most one flaw: exchanged places or looks, a leaked colour, a subject dropped or doubled.
    """
    count = len(first)
    u_B, half_B = torch.rand(count, generator=rng), torch.rand(count, generator=rng) < 0.5
    edges = torch.tensor(list(WRONG.values())).cumsum(0)
    flaw_B = (u_B[:, None] >= edges).sum(1)  # beyond the last edge: none
    has = {name: flaw_B == number for number, name in enumerate(WRONG)}
    both_B2 = torch.stack([half_B, ~half_B], 1)  # which of the two a one-sided flaw is in
    leaks_2, twice_2 = (has["colours"][:, None] & both_B2).unbind(1), (has["doubled"][:, None] & both_B2).unbind(1)
    one, two = looks_of(first, second, has["looks"]), looks_of(second, first, has["looks"])
    one, two = colours_of(one, second, leaks_2[0]), colours_of(two, first, leaks_2[1])
    one, two = _where(one, second, twice_2[0], EVERYTHING), _where(two, first, twice_2[1], EVERYTHING)
    relation_B = prompts.relation_B ^ has["places"].long()  # left and right, above and below are neighbours
    return one, two, replace(prompts, relation_B=relation_B), ~(has["dropped"][:, None] & both_B2)
