"""`cgrpo rewards`: score pictures; serve or convert rewards."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from cgrpo.app.options import (
    File,
    Files,
    NewFile,
    Port,
    Positive,
    Recipe,
    Settings,
    check_pictures,
    command,
    group,
    write_json,
)
from cgrpo.errors import UserError
from cgrpo.files import is_contact_sheet, without_nan

if TYPE_CHECKING:
    from PIL import Image

    from cgrpo.config import Config
    from cgrpo.rewards import Reward, RewardSettings

SHEETS = (".png", ".jpg", ".webp")
ACROSS = 6  # pictures in a row of the sheet
MAX_BODY = 512 * 2**20

Rewards = Annotated[Sequence[str], Parameter(name="--reward", metavar="NAME")]


@dataclass(frozen=True)
class Scores:
    """Each reward's unit, and each picture's scores by reward (NaN: could not be scored), best first reward first."""

    units: dict[str, str]
    rows: list[tuple[Path, dict[str, float]]]


def score(
    images: Annotated[Sequence[File], Parameter(metavar="IMAGE")],
    /,
    *,
    rewards: Rewards = (),
    references: Annotated[Files, Parameter(name="--reference")] = (),
    prompt: Annotated[str, Parameter(metavar="TEXT")] = "",
    subject: Annotated[str, Parameter(metavar="WORD")] = "",
    recipe: Annotated[str, Parameter(metavar="RECIPE")] = "toybox",
    settings: Settings = (),
    sheet: File | None = None,
    json: NewFile | None = None,
) -> Scores:
    """A table of scores of pictures, best first.

    Rewards of identity need --reference, those of the prompt --prompt. Without it, a reward of the recipe is left out,
    and one that --reward names is an error.

    Args:
        images: pictures to score
        rewards: a reward of the recipe, TYPE or TYPE=PATH; repeatable (default: all of the recipe)
        references: pictures of the subject
        prompt: what the pictures should show
        subject: what a segmenter looks for
        recipe: where the rewards are described
        sheet: also write the pictures in that order (PNG)
        json: also write the table as JSON
    """
    from cgrpo.config import load_config
    from cgrpo.data.archives import open_picture

    if sheet is not None and (sheet.suffix.lower() not in SHEETS or sheet.is_dir() or not sheet.parent.is_dir()):
        raise UserError(f"--sheet {sheet}: give a file in an existing folder, ending in {' or '.join(SHEETS)}")
    check_pictures(images)
    check_pictures(references, "--reference ")
    chosen = _chosen(load_config(recipe, settings), rewards, {"identity": bool(references), "prompt": bool(prompt)})
    images = [path for path in images if not is_contact_sheet(path)] or images  # one that is among its pictures
    pictures = [open_picture(path) for path in images]
    if not subject and recipe == "toybox":
        from cgrpo.toybox.world import PHRASE as subject
    scores = _scores(pictures, chosen, tuple(map(open_picture, references)), prompt, subject)
    first = next(iter(chosen))
    order = sorted(range(len(pictures)), key=lambda row: (math.isnan(scores[row][first]), -scores[row][first]))
    if sheet is not None:
        _sheet([pictures[row] for row in order], [scores[row] for row in order]).save(sheet)
    units = {name: reward.unit for name, reward in chosen.items()}
    result = Scores(units, [(images[row], scores[row]) for row in order])
    if json is not None:
        rows = [{"picture": str(path), "scores": without_nan(row)} for path, row in result.rows]
        write_json(json, {"units": units, "pictures": rows})
    return result


def _chosen(cfg: Config, names: Sequence[str], given: Mapping[str, bool]) -> dict[str, Reward]:
    """The rewards that can score with what is ``given``. Raises UserError if none can, or one of ``names`` can't."""
    from cgrpo.rewards import make_reward

    chosen = {}
    for name, settings in ({name: _settings(cfg, name) for name in names} or dict(cfg.rewards)).items():
        reward = make_reward(name, settings)
        if given[reward.axis]:
            chosen[name] = reward
        elif names:
            missing = {"identity": "--reference", "prompt": "--prompt"}[reward.axis]
            raise UserError(f"reward {name!r} scores {reward.axis} and needs {missing}")
    if not chosen:
        raise UserError("no reward can score this: give --reference, --prompt, or both")
    return chosen


def _settings(cfg: Config, name: str) -> RewardSettings:
    from cgrpo.rewards import REWARDS, read_settings

    if name in cfg.rewards:
        return cfg.rewards[name]
    kind, equals, path = name.partition("=")
    if equals or kind in REWARDS.names():
        return read_settings({"type": kind, "path": path} if equals else {"type": kind}, f"--reward {name}")
    raise UserError(f"--reward {name}: the recipe has {', '.join(cfg.rewards)}; another is given as TYPE or TYPE=PATH")


def _scores(
    pictures: Sequence[Image.Image],
    rewards: Mapping[str, Reward],
    references: tuple[Image.Image, ...],
    prompt: str,
    subject: str,
) -> list[dict[str, float]]:
    from cgrpo.rewards import scored
    from cgrpo.rewards.base import to_tensor
    from cgrpo.types import Batch

    scores: list[dict[str, float]] = [{} for _ in pictures]
    for size in dict.fromkeys(picture.size for picture in pictures):
        rows = [row for row, picture in enumerate(pictures) if picture.size == size]
        count = len(rows)
        batch = Batch(tuple(map(str, rows)), (prompt,) * count, (references,) * count, (subject,) * count)
        for name, reward in rewards.items():
            scores_N = scored(name, reward, to_tensor([pictures[row] for row in rows]), batch)
            for row, value in zip(rows, scores_N.tolist(), strict=True):
                scores[row][name] = value
    return scores


def _sheet(pictures: list[Image.Image], scores: list[dict[str, float]]) -> Image.Image:
    from cgrpo.evaluation.show.sheets import grid

    notes = ["\n".join(f"{name.partition('=')[0]} {value:.3f}" for name, value in row.items()) for row in scores]
    starts = range(0, len(pictures), ACROSS)
    return grid(
        [pictures[start : start + ACROSS] for start in starts],
        notes=[notes[start : start + ACROSS] for start in starts],
    )


def show_scores(result: Scores) -> int:
    """Print the table; 1 if a picture could not be scored."""
    from cgrpo.evaluation.show.table import Table, number

    for name, unit in result.units.items():
        print(f"{name}: {unit}")
    rows = [[str(path), *(number(value, 4) for value in row.values())] for path, row in result.rows]
    print("\n" + Table("Scores", "", ["", *result.units], rows, "l" + "r" * len(result.units)).text())
    failed = sum(math.isnan(value) for _, row in result.rows for value in row.values())
    if failed:
        print(f"cgrpo: {failed} of {len(rows) * len(result.units)} scores failed", file=sys.stderr)
    return 1 if failed else 0


def serve(
    recipe: Recipe = "toybox",
    /,
    *,
    settings: Settings = (),
    rewards: Rewards = (),
    host: str = "127.0.0.1",
    port: Port = 8420,
    token_variable: Annotated[str, Parameter(metavar="NAME")] = "",
    max_body: Annotated[Positive, Parameter(metavar="BYTES")] = MAX_BODY,
    device: str = "",
) -> None:
    """Score for other processes and machines over HTTP.

    Args:
        rewards: which rewards; repeatable (default: all)
        host: address to listen at, by default for this machine alone
        port: port; 0 for any free one
        token_variable: environment variable with the token that clients must send; needed for other machines
        max_body: largest request
        device: where the rewards compute (default: the first GPU, or the CPU)
    """
    import torch

    from cgrpo.config import load_config
    from cgrpo.rewards import make_reward
    from cgrpo.rewards.network import is_loopback, read_secret
    from cgrpo.serving import check_installed, listen, run

    check_installed("cgrpo rewards serve")
    from cgrpo.serving.server import create_app

    cfg = load_config(recipe, settings)
    if not token_variable and not is_loopback(host):
        raise UserError(
            f"on {host} others can reach this server: set a token, and name its variable with --token-variable"
        )
    token = read_secret("cgrpo rewards serve", token_variable) if token_variable else ""
    unknown = [name for name in rewards if name not in cfg.rewards]
    if unknown:
        raise UserError(f"no reward {unknown[0]!r} in the recipe; it has {', '.join(cfg.rewards)}")
    with listen(host, port) as bound:
        place = device or ("cuda" if torch.cuda.is_available() else "cpu")
        served = {name: make_reward(name, cfg.rewards[name], place) for name in rewards or cfg.rewards}
        run(create_app(served, max_body=max_body, token=token), bound, host, ", ".join(served))


def convert(
    file: File,
    /,
    *,
    to: Annotated[str, Parameter(metavar="FORM")],
    reference: Annotated[str, Parameter(metavar="FOLDER")] = "",
    out: Annotated[File, Parameter(metavar="PATH")],
) -> Path:
    """Turn a pickled reward checkpoint into safetensors, once.

    Args:
        file: a published .pth, .pt or .bin file
        to: what it holds, such as aesthetic-v1; folder: a transformers checkpoint that is a pytorch_model.bin alone
        reference: configuration and tokenizer, a folder or hub id (default: the published one)
        out: file or folder to write
    """
    from cgrpo.rewards import convert_reward

    return convert_reward(file, to, out, reference)


SCORE_EXAMPLES = """\
cgrpo rewards score --reference toy.png --prompt "a small toy in the snow" \\
    pictures/*.png --sheet scores.png
cgrpo rewards score --reward clip=openai/clip-vit-base-patch32 \\
    --prompt "a cat" pictures/*.png"""
SERVE_EXAMPLES = """\
cgrpo rewards serve uno-dinoseg-hpsv3 --reward prompt --port 8420
REWARD_TOKEN=secret cgrpo rewards serve uno-dinoseg-hpsv3 --host 0.0.0.0 \\
    --token-variable REWARD_TOKEN
cgrpo train uno-dinoseg-hpsv3 --set rewards.prompt.type=remote \\
    --set rewards.prompt.reward=prompt \\
    --set rewards.prompt.url=http://127.0.0.1:8420"""
CONVERT_EXAMPLES = """\
cgrpo rewards convert sa_0_4_vit_l_14_linear.pth --to aesthetic-v1 \\
    --out aesthetic.safetensors"""

app = group(
    "rewards",
    "Score pictures; serve or convert rewards.",
    command("score", score, SCORE_EXAMPLES, show_scores),
    command("serve", serve, SERVE_EXAMPLES),
    command("convert", convert, CONVERT_EXAMPLES, print),
)
