"""LAION's aesthetic predictors, V1 and V2."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from cgrpo.hub import Wanted, locate
from cgrpo.rewards.base import Axis, to_pictures
from cgrpo.rewards.clip import ClipEncoder
from cgrpo.rewards.settings import ModelSettings
from cgrpo.rewards.similarity import EncoderReward
from cgrpo.rewards.sketch import ModelSketch, stock_model
from cgrpo.section import Place
from cgrpo.types import Batch

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Version = Literal["v1", "v2"]
WIDTH = 768  # channels of OpenAI CLIP ViT-L/14's image embedding
V2_WIDTHS = {"0": 1024, "2": 128, "4": 64, "6": 16, "7": 1}  # a layer's number in the published head -> its outputs
PREFIX = {"v1": "", "v2": "layers."}


class AestheticSettings(ModelSettings):
    """Prompt: LAION's aesthetic score of the picture alone, V1 or V2 as the head is."""

    type: Literal["aesthetic"] = "aesthetic"
    path: Place = "openai/clip-vit-large-patch14"
    """Folder or hub id of OpenAI's CLIP ViT-L/14."""
    head: Place
    """The head as safetensors: `cgrpo rewards convert` makes it once from LAION's .pth file."""
    conversions: ClassVar = {"aesthetic-v1": "", "aesthetic-v2": ""}

    def checkpoints(self) -> Mapping[str, Wanted]:
        return {"path": "folder", "head": "file"}

    def models(self) -> tuple[ModelSketch, ...]:
        return (stock_model(self.path, chunk=self.chunk, texts=False),)

    def build(self, name: str, device: torch.device | str) -> Aesthetic:
        encoder = ClipEncoder(locate(self.path, "folder"), device, self.chunk, texts=False)
        return Aesthetic(encoder, locate(self.head, "file"))

    @classmethod
    def convert(cls, form: str, file: Path, out: Path, reference: str) -> Path:
        """LAION's published head for ViT-L/14 as the safetensors file ``out``.

        V1: sa_0_4_vit_l_14_linear.pth; V2: sac+logos+ava1-l14-linearMSE.pth.
        """
        from cgrpo.rewards.convert import read_pickled, write_weights

        state = read_pickled(file)
        load_head(state, file, "v1" if form == "aesthetic-v1" else "v2", WIDTH)
        return write_weights(state, out)


class Aesthetic(EncoderReward):
    """LAION's aesthetic score of a picture alone, about 1 to 10; the prompt is not looked at.

    Model: OpenAI CLIP ViT-L/14, its unit-length image embedding (768), fp32, then the head in ``head`` (safetensors):
    V1 one linear layer; V2 (improved-aesthetic-predictor) five without activations between them. The file's keys tell
    which. Their scales differ: thresholds for one mean nothing for the other. SynCD's filter is V1.
    It counts among the prompt rewards, as HPSv3 does, whose quality it shares.
    """

    axis: Axis = "prompt"

    def __init__(self, encoder: ClipEncoder, head: Path):
        from cgrpo.rewards.loading import load_weights

        state = load_weights(head, "give a safetensors file, made once from the .pth by `cgrpo rewards convert`")
        self.version: Version = "v1" if state.keys() == {"weight", "bias"} else "v2"
        self.head = load_head(state, head, self.version, encoder.model.config.projection_dim)
        super().__init__(encoder, f"LAION aesthetic {self.version.upper()}, about 1 to 10")

    def score(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        return self.head(self.encoder.pictures(to_pictures(images_NHWC)))[:, 0]


def make_head(version: Version, width: int) -> nn.Module:
    """The head for embeddings of ``width`` channels, weights unset; dropouts play no part in scoring."""
    import torch
    from torch import nn

    with torch.device("meta"):
        if version == "v1":
            return nn.Linear(width, 1)
        head = nn.Sequential()
        for name, outputs in V2_WIDTHS.items():
            head.add_module(name, nn.Linear(width, outputs))
            width = outputs
        return head


def load_head(state: Mapping[str, Tensor], where: Path, version: Version, width: int) -> nn.Module:
    """The head with exactly the weights of ``state``, frozen. Raises UserError, which names ``where``."""
    from cgrpo.rewards.loading import fill

    named = {key.removeprefix(PREFIX[version]): value for key, value in state.items()}
    return fill(make_head(version, width), named, where, f"the aesthetic head {version.upper()}")
