"""`cgrpo rewards score`: a quick look at what rewards say of pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from cgrpo.config import TOYBOX, Config, load_config
from cgrpo.data.archives import open_picture
from cgrpo.errors import UserError
from cgrpo.evaluation.show.sheets import grid
from cgrpo.rewards import RewardSettings, make_reward, read_settings, scored
from cgrpo.rewards.base import to_tensor
from cgrpo.toybox.world import PHRASE
from cgrpo.types import Batch

SHEETS = (".png", ".jpg", ".webp")
ACROSS = 6  # pictures in a row of the sheet


@dataclass(frozen=True)
class Scores:
    """Each reward's unit, and each picture's scores by reward (NaN: could not be scored), best first reward first."""

    units: dict[str, str]
    rows: list[tuple[Path, dict[str, float]]]


def score(
    images: Sequence[Path],
    *,
    rewards: Sequence[str] = (),
    references: Sequence[Path] = (),
    prompt: str = "",
    subject: str = "",
    recipe: str = TOYBOX,
    settings: Sequence[str] = (),
    sheet: Path | None = None,
) -> Scores:
    """Score picture files; ``sheet`` is a picture file to write with all of them, in order.

    ``rewards``: names in the recipe (by default all of them), or ``TYPE=PATH`` such as
    "clip=openai/clip-vit-base-patch32". Rewards of identity need ``references``, those of the prompt ``prompt``;
    without, one that wasn't asked for is left out, and one that was is an error. Raises UserError.
    """
    if sheet is not None and (sheet.suffix.lower() not in SHEETS or sheet.is_dir() or not sheet.parent.is_dir()):
        raise UserError(f"--sheet {sheet}: give a file in a folder that is there, ending in {' or '.join(SHEETS)}")
    cfg = load_config(recipe, settings)
    asked = {name: _settings(cfg, name) for name in rewards} or dict(cfg.rewards)
    chosen = {}
    for name, kind in asked.items():
        reward = make_reward(name, kind)
        lacking = {"identity": "--reference" if not references else "", "prompt": "" if prompt else "--prompt"}
        if not lacking[reward.axis]:
            chosen[name] = reward
        elif rewards:
            raise UserError(f"reward {name!r} scores {reward.axis} and needs {lacking[reward.axis]}")
    if not chosen:
        raise UserError("no reward can score this: give --reference, --prompt, or both")
    pictures = [open_picture(path) for path in images]
    known = tuple(open_picture(path) for path in references)
    found: list[dict[str, float]] = [{} for _ in pictures]
    for size in dict.fromkeys(picture.size for picture in pictures):
        rows = [row for row, picture in enumerate(pictures) if picture.size == size]
        count = len(rows)
        words = (subject or (PHRASE if recipe == TOYBOX else ""),) * count
        batch = Batch(tuple(str(images[row]) for row in rows), (prompt,) * count, (known,) * count, words)
        for name, reward in chosen.items():
            scores_N = scored(name, reward, to_tensor([pictures[row] for row in rows]), batch)
            for row, value in zip(rows, scores_N.tolist(), strict=True):
                found[row][name] = value
    first = next(iter(chosen))
    order = sorted(range(len(pictures)), key=lambda row: (math.isnan(found[row][first]), -found[row][first]))
    if sheet is not None:
        _sheet([pictures[row] for row in order], [found[row] for row in order]).save(sheet)
    units = {name: reward.unit for name, reward in chosen.items()}
    return Scores(units, [(images[row], found[row]) for row in order])


def _settings(cfg: Config, name: str) -> RewardSettings:
    """The settings of a reward asked for by its name in the recipe, or as TYPE=PATH."""
    kind, equals, path = name.partition("=")
    if equals:
        return read_settings({"type": kind, "path": path}, f"--reward {name}")
    if name not in cfg.rewards:
        raise UserError(f"--reward {name}: the recipe has {', '.join(cfg.rewards)}; another is given as TYPE=PATH")
    return cfg.rewards[name]


def _sheet(pictures: list[Image.Image], scores: list[dict[str, float]]) -> Image.Image:
    notes = ["\n".join(f"{name.partition('=')[0]} {value:.3f}" for name, value in row.items()) for row in scores]
    starts = range(0, len(pictures), ACROSS)
    return grid(
        [pictures[start : start + ACROSS] for start in starts],
        notes=[notes[start : start + ACROSS] for start in starts],
    )
