"""The settings of each kind of reward: a closed union told apart by ``type``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Tag

from cgrpo.config.section import TOYBOX, Positive, Section

AxisName = Literal["identity", "prompt"]


class DinoSegSettings(Section):
    """Identity: DINOv2 similarity of the segmented subjects (the paper)."""

    type: Literal["dino-seg"] = "dino-seg"
    path: str = TOYBOX
    """Folder or hub id of a DINOv2 (or DINOv3) checkpoint, or "toybox" (the paper: DINOv2-large)."""
    segmenter: str = TOYBOX
    """Folder or hub id of the segmenter: SAM with a ``detector``, SAM 3, or a Segformer that knows the subject's word;
    or "toybox". Empty with masks = "reference": the data set's own masks alone."""
    detector: str = ""
    """Folder or hub id of a GroundingDINO checkpoint that finds the box SAM segments; empty for none."""
    masks: Literal["both", "reference", "none"] = "both"
    """What is segmented: both pictures (the paper), the reference alone (the release), or nothing (plain DINO)."""
    chunk: Positive = 64
    """Pictures per forward."""


class ClipSettings(Section):
    """Prompt: CLIP similarity of picture and text."""

    type: Literal["clip"] = "clip"
    path: str = TOYBOX
    """Folder or hub id of a CLIP checkpoint, or "toybox"."""
    chunk: Positive = 64
    """Pictures per forward."""


class HpsV3Settings(Section):
    """Prompt: HPSv3's human preference score (the paper)."""

    type: Literal["hpsv3"] = "hpsv3"
    path: str
    """HPSv3.safetensors, or a hub id that holds it."""
    backbone: str
    """Folder or hub id with Qwen2-VL-7B-Instruct's configuration and tokenizer."""
    template: str = ""
    """File with the prompt template (.txt, or the .py of the hpsv3 package); empty: the installed hpsv3 package's."""
    rotary: Literal["reference", "fp32"] = "reference"
    """Rotary tables rounded to bfloat16 as HPSv3 was trained, or exact."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Precision of the backbone; the head stays in float32."""
    chunk: Positive = 4
    """Pictures per forward."""


class FunctionSettings(Section):
    """A reward of your own."""

    type: str
    """"package.module:function", called with (pictures, batch), returns scores."""
    axis: AxisName = "prompt"
    """What it measures, for the reports."""


def _kind(value: Any) -> str:
    name = value.get("type", "") if isinstance(value, dict) else getattr(value, "type", "")
    return "function" if ":" in str(name) else str(name)


RewardSettings = Annotated[
    Annotated[DinoSegSettings, Tag("dino-seg")]
    | Annotated[ClipSettings, Tag("clip")]
    | Annotated[HpsV3Settings, Tag("hpsv3")]
    | Annotated[FunctionSettings, Tag("function")],
    Discriminator(
        _kind,
        custom_error_type="reward_type",
        custom_error_message="type must be dino-seg, clip, hpsv3, none, or package.module:function",
    ),
]
REWARD_TYPES: dict[str, type[Section]] = {
    "dino-seg": DinoSegSettings,
    "clip": ClipSettings,
    "hpsv3": HpsV3Settings,
    "function": FunctionSettings,
}
DEFAULT_REWARDS: dict[str, RewardSettings] = {"identity": DinoSegSettings(), "prompt": ClipSettings()}


def with_defaults(table: dict[str, Any]) -> dict[str, Any]:
    """A recipe's rewards over the default ones.

    What is not said of "identity" and "prompt" stays as there, unless another type is asked for; type "none" leaves
    a reward out.
    """
    merged: dict[str, Any] = dict(DEFAULT_REWARDS)
    for name, given in table.items():
        default = DEFAULT_REWARDS.get(name)
        if isinstance(given, dict) and default is not None and given.get("type", default.type) == default.type:
            given = default.model_dump() | given
        merged[name] = given
    return {name: s for name, s in merged.items() if not (isinstance(s, dict) and s.get("type") == "none")}
