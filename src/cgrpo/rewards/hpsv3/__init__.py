"""HPSv3, the paper's prompt reward."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cgrpo.errors import UserError
from cgrpo.hub import Wanted, locate, read_settings
from cgrpo.rewards.base import Reward
from cgrpo.rewards.hpsv3.template import read_template
from cgrpo.rewards.settings import ModelSettings
from cgrpo.rewards.sketch import ModelSketch
from cgrpo.section import Place, Positive

if TYPE_CHECKING:
    import torch
    from torch import nn


class HpsV3Settings(ModelSettings):
    """Prompt: HPSv3's human preference score (the paper)."""

    type: Literal["hpsv3"] = "hpsv3"
    path: Place
    """HPSv3.safetensors, or a hub id that holds it."""
    backbone: Place
    """Folder or hub id with Qwen2-VL-7B-Instruct's configuration and tokenizer."""
    template: Place = ""
    """File with the prompt template (.txt, or the .py of the hpsv3 package); empty: the installed hpsv3 package's."""
    rotary: Literal["reference", "fp32"] = "reference"
    """Rotary tables rounded to bfloat16 as HPSv3 was trained, or exact."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Precision of the backbone; the head stays in float32."""
    chunk: Positive = 4
    """Pictures per forward."""

    def build(self, name: str, device: torch.device | str) -> Reward:
        from cgrpo.rewards.hpsv3.reward import HPSv3

        return HPSv3(
            locate(self.path, "file"),
            locate(self.backbone, "settings"),
            template=self._template(),
            device=device,
            dtype=self.dtype,
            rotary=self.rotary,
            chunk=self.chunk,
        )

    def models(self) -> tuple[ModelSketch, ...]:
        config = read_settings(self.backbone)
        if config is None:
            return (ModelSketch("HPSv3"),)

        def build() -> nn.Module:
            from cgrpo.rewards.hpsv3.reward import empty_parts

            return empty_parts(config, self.dtype)

        def run(model: Any, count: int) -> None:
            from cgrpo.rewards.hpsv3.reward import run_blank

            run_blank(model, count)

        return (ModelSketch("HPSv3", build, run, self.chunk),)

    def checkpoints(self) -> Mapping[str, Wanted]:
        return {"path": "file", "backbone": "settings"}

    def missing(self) -> list[str]:
        try:
            read_template(self._template())
        except UserError as error:
            return [str(error)]
        return []

    def _template(self) -> Path | None:
        return Path(self.template) if self.template else None
