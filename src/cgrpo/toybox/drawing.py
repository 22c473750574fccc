"""How the toy world looks: pictures of subjects where and how prompts ask for them, drawn in torch from a seed.

Pictures are float32 RGB [B, 3, 32, 32] in [0, 1].
"""

import math

import torch
from torch import Tensor

from cgrpo.toybox.world import POSITIONS, SIZES, Prompts, Subjects, with_property

SIZE = 32  # pixels a side
SUPER = 2  # supersampling: edges are anti-aliased by averaging SUPER x SUPER points
GROUNDS = (  # each scene's colours at the top and at the bottom, in the order of world.SCENES
    ((0.45, 0.75, 0.98), (0.93, 0.83, 0.55)),
    ((0.10, 0.35, 0.15), (0.20, 0.50, 0.18)),
    ((0.03, 0.04, 0.18), (0.08, 0.09, 0.30)),
    ((0.75, 0.82, 0.90), (0.97, 0.98, 1.00)),
    ((0.45, 0.15, 0.45), (0.99, 0.60, 0.20)),
    ((0.62, 0.66, 0.72), (0.35, 0.35, 0.38)),
)


def _grid() -> tuple[Tensor, Tensor]:
    """Pixel coordinates x and y [S, S] of the supersampled picture, in pixels from its centre."""
    axis = (torch.arange(SIZE * SUPER) + 0.5) / SUPER - SIZE / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return x, y


def _shape_masks(u: Tensor, v: Tensor, shape_B: Tensor) -> Tensor:
    """Inside (1) or outside (0) of each subject's shape; u, v [B, S, S] in radii."""
    r = (u * u + v * v).sqrt()
    theta = torch.atan2(u, -v)
    star = 0.62 + 0.38 * torch.cos(5 * theta)
    heart_v = -v + 0.15
    heart = (u * u + heart_v * heart_v - 0.55) ** 3 - 1.1 * u * u * heart_v**3
    masks = (
        r < 0.95,
        (u.abs() < 0.82) & (v.abs() < 0.82),
        (v < 0.75) & (v > -1 + 1.9 * u.abs()),
        u.abs() + v.abs() < 1.05,
        r < star.clamp(min=0.42),
        ((u.abs() < 0.36) & (v.abs() < 0.98)) | ((v.abs() < 0.36) & (u.abs() < 0.98)),
        (r < 1.0) & (r > 0.45),
        heart < 0,
    )
    inside = torch.zeros_like(u)
    for index, mask in enumerate(masks):
        inside = torch.where((shape_B == index)[:, None, None], mask.float(), inside)
    return inside


def _pattern(u: Tensor, v: Tensor, subjects: Subjects) -> Tensor:
    """1 where the main colour is, 0 where the other is; u, v [B, S, S] in radii."""
    angle, f = subjects.angle_B[:, None, None], math.pi * subjects.frequency_B[:, None, None]
    a = u * angle.cos() + v * angle.sin()
    b = -u * angle.sin() + v * angle.cos()
    kinds = (
        torch.sin(f * a) > -0.15,
        torch.sin(f * a) * torch.sin(f * b) > 0,
        torch.cos(f * a) + torch.cos(f * b) < 0.75,
        torch.cos(1.15 * f * (u * u + v * v).sqrt()) > -0.15,
        a > 0,
    )
    main = torch.zeros_like(u)
    for index, kind in enumerate(kinds):
        main = torch.where((subjects.pattern_B == index)[:, None, None], kind.float(), main)
    return main


def _mix(lower: Tensor, upper: Tensor, share: Tensor) -> Tensor:
    """Blend two colours [B, 3] by a share [B, S, S] -> [B, 3, S, S]."""
    return lower[:, :, None, None] + (upper - lower)[:, :, None, None] * share[:, None]


def scenes(scene_B: Tensor, rng: torch.Generator) -> Tensor:
    """Backgrounds [B, 3, S, S]; each scene is drawn a little differently every time."""
    count = len(scene_B)
    x, y = _grid()
    noise = torch.rand(count, 8, generator=rng)
    jitter = 0.08 * (torch.rand(count, 2, 3, generator=rng) - 0.5)
    top, bottom = (torch.tensor(GROUNDS)[scene_B] + jitter).clamp(0, 1).unbind(1)
    fade = ((y + SIZE / 2) / SIZE)[None].expand(count, -1, -1)
    horizon = (4 + 5 * noise[:, 0])[:, None, None]
    ground = (y[None] > horizon).float()
    share = torch.where(torch.isin(scene_B, torch.tensor([0, 3]))[:, None, None], ground, fade)
    picture = _mix(top, bottom, share)

    phase = 2 * math.pi * noise[:, 1, None, None]
    trunks = (torch.cos(x[None] * (0.75 + 0.2 * noise[:, 2, None, None]) + phase) > 0.72).float()
    blocks = torch.floor((x[None] + 8 * noise[:, 3, None, None]) / 5.3)
    heights = torch.frac((torch.sin(blocks * 12.9898 + phase) * 43.76).abs()) * 15 - 9
    towers = (y[None] > heights).float()
    stars = (torch.rand(count, SIZE, SIZE, generator=rng) < 0.035).float()
    stars = stars.repeat_interleave(SUPER, 1).repeat_interleave(SUPER, 2)
    sun = ((x[None] - 10 * (noise[:, 4, None, None] - 0.5)) ** 2 + (y[None] - 8) ** 2 < 20).float()
    details = (
        (1, trunks, torch.tensor([0.32, 0.20, 0.10])),
        (2, stars, torch.tensor([0.95, 0.95, 0.80])),
        (3, stars * (1 - ground), torch.tensor([1.0, 1.0, 1.0])),
        (4, sun, torch.tensor([1.0, 0.90, 0.45])),
        (5, towers, torch.tensor([0.24, 0.25, 0.32])),
    )
    for scene, mask, colour in details:
        share = mask * (scene_B == scene)[:, None, None]
        picture = picture + (colour[None, :, None, None] - picture) * share[:, None]
    return picture


def _paint(background: Tensor, subjects: Subjects, centre_B2: Tensor, radius_B: Tensor) -> tuple[Tensor, Tensor]:
    """Subjects over backgrounds, averaged down to SIZE: pictures [B, 3, 32, 32] and masks [B, 32, 32] in [0, 1]."""
    picture, inside = over(background, subjects, centre_B2, radius_B)
    return averaged(picture).clamp(0, 1), averaged(inside[:, None])[:, 0]


def averaged(picture: Tensor) -> Tensor:
    """[B, C, S, S] down to [B, C, SIZE, SIZE]."""
    return torch.nn.functional.avg_pool2d(picture, SUPER)


def over(
    background: Tensor, subjects: Subjects, centre_B2: Tensor, radius_B: Tensor, *, whole: bool = False
) -> tuple[Tensor, Tensor]:
    """Subjects over backgrounds [B, 3, S, S], supersampled: pictures as they are, and masks [B, S, S], 0 or 1.

    ``whole`` covers all of a picture with the subject's pattern.
    """
    x, y = _grid()
    u = (x[None] - centre_B2[:, 0, None, None]) / radius_B[:, None, None]
    v = (y[None] - centre_B2[:, 1, None, None]) / radius_B[:, None, None]
    inside = _shape_masks(u, v, subjects.shape_B)
    colour = _mix(subjects.other_BC, subjects.main_BC, _pattern(u, v, subjects))
    return colour if whole else background + (colour - background) * inside[:, None], inside


def draw(subjects: Subjects, prompts: Prompts, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """What each prompt asks for: pictures [B, 3, 32, 32] and the subjects' masks [B, 32, 32]."""
    places = torch.tensor([vector for _, vector in POSITIONS.values()])
    radius, shift = torch.tensor(list(SIZES.values()))[prompts.size_B].unbind(1)
    jitter = torch.rand(len(subjects), 3, generator=rng) - 0.5
    centre = places[prompts.position_B] * shift[:, None] + 1.6 * jitter[:, :2]
    painted = with_property(subjects, prompts.property_B, rng)
    return _paint(scenes(prompts.scene_B, rng), painted, centre, radius * (1 + 0.12 * jitter[:, 2]))


def draw_references(subjects: Subjects, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """The references: each subject large and centred on a plain light ground; pictures and masks as in ``draw``."""
    count = len(subjects)
    u = torch.rand(count, 7, generator=rng)
    plain = (0.7 + 0.3 * u[:, :1]) * (1 - 0.08 * u[:, 1:4])
    ground = plain[:, :, None, None].expand(-1, -1, SIZE * SUPER, SIZE * SUPER)
    return _paint(ground, subjects, 1.2 * (u[:, 4:6] - 0.5), 11.5 + 1.5 * u[:, 6])
