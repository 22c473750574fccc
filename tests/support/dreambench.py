"""DreamBench's layout in drawn pictures: plain colours, so that a reward of colour has scores known by hand."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from cgrpo.rewards import Reward
from cgrpo.types import Batch

GREY = {"cat": 60, "dog": 180, "vase": 120}  # of photograph 00; every further one is 10 brighter
COUNT = {"cat": 5, "dog": 3, "vase": 3}
SUBJECTS = tuple(GREY)


def draw_photographs(data: Path) -> Path:
    """cat (reference 04), dog and vase (02). Odd ones: cat/01 two-frame MPO, cat/02 turned by EXIF, cat/03 palette."""
    for subject, grey in GREY.items():
        (data / subject).mkdir(parents=True)
        for n in range(COUNT[subject]):
            picture = Image.new("RGB", (24, 16), (grey + 10 * n,) * 3)
            file = data / subject / f"{n:02d}.jpg"
            if (subject, n) == ("cat", 1):
                picture.save(file, format="MPO", save_all=True, append_images=[Image.new("RGB", (24, 16), "red")])
            elif (subject, n) == ("cat", 2):
                exif = Image.Exif()
                exif[0x0112] = 6  # to be turned by a quarter
                picture.save(file, exif=exif)
            elif (subject, n) == ("cat", 3):
                picture.convert("P").save(file, format="PNG")  # a wrong suffix, as found in the wild
            else:
                picture.save(file)
    return data


class Alike(Reward):
    """1 - the difference of mean grey levels / 100, the mean over references."""

    axis = "identity"
    unit = "test"

    def __call__(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        means = images_NHWC.float().mean((1, 2, 3))
        scores = [
            sum(1 - abs(float(mean) - grey(picture)) / 100 for picture in row) / len(row)
            for mean, row in zip(means, batch.references, strict=True)
        ]
        return torch.tensor(scores)


class Length(Reward):
    """The prompt's length, but NaN for a black picture."""

    axis = "prompt"
    unit = "test"

    def __call__(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        black = images_NHWC.float().amax((1, 2, 3)) == 0
        lengths = torch.tensor([float(len(prompt)) for prompt in batch.prompts])
        return torch.where(black, torch.nan, lengths)


def grey(picture: Image.Image) -> float:
    return float(torch.tensor(list(picture.convert("L").tobytes())).float().mean())
