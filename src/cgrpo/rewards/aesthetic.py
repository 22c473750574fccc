"""LAION's aesthetic predictors, V1 and V2."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from cgrpo.errors import UserError
from cgrpo.rewards.base import Axis, Reward, to_pictures
from cgrpo.rewards.clip import ClipEncoder
from cgrpo.rewards.loading import check_fit
from cgrpo.types import Batch

Version = Literal["v1", "v2"]
V2_WIDTHS = {"0": 1024, "2": 128, "4": 64, "6": 16, "7": 1}  # a layer's number in the published head -> its outputs
PREFIX = {"v1": "", "v2": "layers."}


class Aesthetic(Reward):
    """LAION's aesthetic score of a picture alone, about 1 to 10; the prompt is not looked at.

    Model: OpenAI CLIP ViT-L/14, its unit-length image embedding (768), fp32, then the head in ``head`` (safetensors):
    V1 one linear layer; V2 (improved-aesthetic-predictor) five without activations between them. Which of them, the
    file's keys tell. Their scales differ: thresholds for one mean nothing for the other. SynCD's filter is V1.
    Preprocessing: ClipEncoder's (224 bicubic, centre crop, CLIP statistics). The published heads are ``.pth`` files;
    convert.convert_aesthetic_head makes them safetensors once.
    It counts among the prompt rewards, as HPSv3 does, whose quality it shares.
    """

    axis: Axis = "prompt"

    def __init__(self, folder: Path, head: Path, *, device: torch.device | str = "cpu", chunk: int = 64):
        self.encoder = ClipEncoder(folder, chunk, texts=False)
        self.version, self.head = load_head(Path(head), self.encoder.model.config.projection_dim)
        self.unit = f"LAION aesthetic {self.version.upper()}, about 1 to 10"
        self.to(device)

    def to(self, device: torch.device | str) -> None:
        self.encoder.model.to(device)

    @torch.no_grad()
    def __call__(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        return self.head(self.encoder.pictures(to_pictures(images_NHWC)))[:, 0]


def head_version(keys: Iterable[str]) -> Version:
    """Which head has weights of these names; V2 unless they are V1's."""
    return "v1" if set(keys) == {"weight", "bias"} else "v2"


def make_head(version: Version, width: int) -> nn.Module:
    """The head for embeddings of ``width`` channels, weights unset; dropouts play no part in scoring."""
    with torch.device("meta"):
        if version == "v1":
            return nn.Linear(width, 1)
        layers = OrderedDict()
        for name, outputs in V2_WIDTHS.items():
            layers[name] = nn.Linear(width, outputs)
            width = outputs
        return nn.Sequential(layers)


def check_head(where: Path, version: Version, width: int, state: dict[str, Tensor]) -> None:
    """Raise UserError unless ``state`` is exactly that head's."""
    needed = {PREFIX[version] + key: list(value.shape) for key, value in make_head(version, width).state_dict().items()}
    mismatched = [
        f"{key} {list(value.shape)}, not {needed[key]}"
        for key, value in state.items()
        if key in needed and list(value.shape) != needed[key]
    ]
    name = f"the aesthetic head {version.upper()}"
    check_fit(where, name, needed.keys() - state.keys(), state.keys() - needed.keys(), mismatched)


def load_head(path: Path, width: int) -> tuple[Version, nn.Module]:
    """The head in a safetensors file, fp32, frozen, on the CPU. UserError if it is unreadable or no such head."""
    try:
        state = {key: value.float() for key, value in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"aesthetic head {path}: can't be read ({' '.join(str(error).split())[:200]}); give a safetensors file, "
            "made once from the published .pth by `cgrpo rewards convert`"
        ) from error
    version = head_version(state)
    check_head(path, version, width, state)
    head = make_head(version, width)
    head.load_state_dict({key.removeprefix(PREFIX[version]): value for key, value in state.items()}, assign=True)
    return version, head.eval().requires_grad_(False)
