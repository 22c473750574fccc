"""HPSv3, the paper's prompt reward."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cgrpo.errors import UserError
from cgrpo.files import reading
from cgrpo.fingerprint import of_text
from cgrpo.hub import Wanted, locate, read_settings
from cgrpo.rewards.base import Reward
from cgrpo.rewards.settings import ModelSettings
from cgrpo.rewards.sketch import ModelSketch
from cgrpo.section import Place, Positive

if TYPE_CHECKING:
    import torch
    from torch import nn

# Of hpsv3 1.0.0: INSTRUCTION followed by the line that asks for the rating, "{text_prompt}" not filled in.
SHA256 = "f6ee57479d4e9eee76b49c00dc962e1e696a5a2b3cc32cebd9b1fa76fe27502c"
CONSTANTS = ("INSTRUCTION", "prompt_with_special_token")
PROMPT = "{text_prompt}"
REWARD_TOKEN = "<|Reward|>"
REMEDY = "pip install --no-deps hpsv3==1.0.0, or name its hpsv3/dataset/data_collator_qwen.py as the template"


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


def read_template(path: Path | None = None) -> str:
    """The user's turn with "{text_prompt}" where the prompt goes and the reward token near its end.

    ``path`` None: from the installed hpsv3 package, whose source is parsed, never imported. A .py: a copy of that
    source file. Both must be version 1.0.0's text. A .txt: a template of your own, taken as it is.
    """
    path = _installed() if path is None else Path(path)
    with reading(path, REMEDY):
        text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        text = _constants(text, path)
        if of_text(text) != SHA256:
            raise UserError(f"HPSv3 template {path}: not the text the checkpoint was trained on (SHA-256); {REMEDY}")
    elif path.suffix != ".txt":
        raise UserError(f"HPSv3 template {path}: must be a .txt, or the .py of the hpsv3 package")
    for part in (PROMPT, REWARD_TOKEN):
        if text.count(part) != 1:
            raise UserError(f"HPSv3 template {path}: must hold {part} exactly once, holds it {text.count(part)} times")
    return text


def _installed() -> Path:
    spec = importlib.util.find_spec("hpsv3")  # of a top-level package: finds it without running it
    folders = None if spec is None else spec.submodule_search_locations
    if not folders:
        raise UserError(f"HPSv3 needs the prompt template it was trained with: {REMEDY}")
    return Path(folders[0]) / "dataset" / "data_collator_qwen.py"


def _constants(source: str, path: Path) -> str:
    """The module's string constants, joined."""
    values: dict[str, str] = {}
    for statement in ast.parse(source).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str(text))):
                values[name] = text
    missing = [name for name in CONSTANTS if name not in values]
    if missing:
        raise UserError(f"HPSv3 template {path}: holds no string constant {missing[0]}; {REMEDY}")
    return "".join(values[name] for name in CONSTANTS)
