"""What all rewards' settings share. Imports neither torch nor anything heavy, nor do the modules of single rewards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from cgrpo.errors import UserError
from cgrpo.extensions import is_installed, resolve
from cgrpo.hub import Wanted, asset, locate
from cgrpo.rewards.base import FunctionReward, Reward, failing
from cgrpo.rewards.sketch import ModelSketch, stock_model
from cgrpo.section import TOYBOX_WORLDS, Positive, Section
from cgrpo.types import Task

if TYPE_CHECKING:
    import torch

AxisName = Literal["identity", "prompt"]


class RewardSettings(Section):
    """The settings of one reward, and what follows from them before anything is loaded.

    A subclass stands for one ``type``. Only ``build`` and ``convert`` import torch and models.
    """

    packages: ClassVar[tuple[str, ...]] = ()
    """Packages that this type needs beside the installed ones, by the names they are imported by."""
    conversions: ClassVar[Mapping[str, str]] = {}
    """Published forms that ``convert`` reads. The value: the hub id of the configuration and tokenizer it takes."""

    type: str
    """Says which reward it is."""

    def build(self, name: str, device: torch.device | str) -> Reward:
        """The reward, on ``device``; ``name`` is for messages. Raises UserError."""
        raise NotImplementedError

    def checkpoints(self) -> Mapping[str, Wanted]:
        """The settings that name a checkpoint, and what of it is needed."""
        return {}

    def models(self) -> tuple[ModelSketch, ...]:
        """Its models without weights, for ``cgrpo plan``; none for a reward that computes elsewhere."""
        return (ModelSketch(self.type),)

    def missing(self) -> list[str]:
        """What must be installed first, a line each; checkpoints apart."""
        return [f"needs {name}: pip install {name}" for name in self.packages if not is_installed(name)]

    def lacks(self, task: Task) -> str:
        """What ``task`` must say and does not, in words; "" if nothing."""
        return ""

    @classmethod
    def convert(cls, form: str, file: Path, out: Path, reference: str) -> Path:
        """Write a published pickle as ``out``, which ``build`` can load. ``form``: a key of ``conversions``.

        ``reference``: folder or hub id of the configuration and tokenizer. Raises UserError.
        """
        raise NotImplementedError


class ModelSettings(RewardSettings):
    """The settings of a reward with models in this process."""

    chunk: Positive = 64
    """Pictures per forward."""
    offload: bool = False
    """Keep the models in the CPU's memory between calls."""

    def checkpoints(self) -> Mapping[str, Wanted]:
        return {"path": "folder"}

    def models(self) -> tuple[ModelSketch, ...]:
        folders = [name for name, wanted in self.checkpoints().items() if wanted == "folder"]
        return tuple(stock_model(getattr(self, name), chunk=self.chunk) for name in folders)


class FunctionSettings(RewardSettings):
    """A reward of your own."""

    type: str
    """"package.module:function", called with (pictures, batch), returns scores."""
    axis: AxisName = "prompt"
    """What it measures, for the reports."""
    background: bool = False
    """Score in a thread while the next groups are sampled. For a function that waits for another machine, or computes
    on the CPU beside a GPU, and draws nothing from torch's global random state."""

    def build(self, name: str, device: torch.device | str) -> Reward:
        with failing(f"type {self.type!r} can't be imported"):
            function = resolve(self.type)
        if not callable(function):
            raise UserError(f"type {self.type!r} is no function")
        return FunctionReward(function, self.axis, self.background)

    def missing(self) -> list[str]:
        try:
            self.build("", "cpu")
        except UserError as error:
            return [str(error)]
        return []


def folder(path: str, own: str) -> Path:
    """A checkpoint's folder, fetched from the hub if need be; "toybox" is the package's ``own``. Raises UserError."""
    return asset(own, path) if path in TOYBOX_WORLDS else locate(path, "folder")
