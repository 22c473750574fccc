"""Rewards: pictures and tasks in, one score per picture out.

Each reward is one module or folder: its settings, which import no torch, its class, and what it needs. ``REWARDS``
lists them by the name that ``rewards.NAME.type`` gives; other packages add to it (docs/guides/extending.md).

dino_seg      identity  DINOv2 or DINOv3 ViT, CLS token of the subject, cut out by a segmenter; cosine, -1 to 1
hpsv3         prompt    Qwen2-VL-7B with HPSv3's head, about 448 x 448 pixels; the mean score mu, unbounded
dino          identity  DreamBench's DINO: DINO v1 ViT-S/16, whole pictures; cosine, -1 to 1
clip          prompt    CLIP of picture and raw prompt (also HPSv2 and PickScore), or identity: of picture and reference
siglip2       either    SigLIP 2 of picture and reference, or of picture and prompt; cosine, -1 to 1
csd           identity  similarity of style, CSD ViT-L/14; cosine, -1 to 1
face          identity  similarity of faces, OpenCV's YuNet and SFace; cosine, 0 to 1
image_reward  prompt    BLIP reading the prompt over the picture; standardised, about -2 to 2
aesthetic     prompt    LAION's aesthetic predictor V1 or V2 on CLIP ViT-L/14; about 1 to 10
vlm           either    a vision-language model behind an API, asked by our rubric; 0 to 4
remote        either    any of these in another process: cgrpo rewards serve

All pictures are prepared by PIL, as the models were published. Every checkpoint is safetensors and loaded strictly;
weights that are only published pickled pass once through ``convert``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

from pydantic import BeforeValidator, SerializeAsAny, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from cgrpo.errors import UserError
from cgrpo.extensions import Extensions
from cgrpo.hub import locate
from cgrpo.rewards.base import Axis, FunctionReward, Offloaded, Reward, failing, scored
from cgrpo.rewards.settings import FunctionSettings, ModelSettings, RewardSettings
from cgrpo.section import first_fault

if TYPE_CHECKING:
    import torch

__all__ = [
    "REWARDS",
    "AnyReward",
    "FunctionReward",
    "FunctionSettings",
    "ModelSettings",
    "Offloaded",
    "Reward",
    "RewardSettings",
    "conversions",
    "convert_reward",
    "load_reward",
    "make_reward",
    "make_rewards",
    "read_settings",
    "scored",
]

REWARDS = Extensions(
    "reward",
    "cgrpo.rewards",
    {
        "dino-seg": "cgrpo.rewards.dino:DinoSegSettings",
        "dino": "cgrpo.rewards.dino_v1:DinoSettings",
        "clip": "cgrpo.rewards.clip:ClipSettings",
        "clip-i": "cgrpo.rewards.clip:ClipImageSettings",
        "siglip2": "cgrpo.rewards.siglip2:Siglip2Settings",
        "csd": "cgrpo.rewards.csd:CsdSettings",
        "face": "cgrpo.rewards.face:FaceSettings",
        "aesthetic": "cgrpo.rewards.aesthetic:AestheticSettings",
        "hpsv2": "cgrpo.rewards.clip:HpsV2Settings",
        "pickscore": "cgrpo.rewards.clip:PickScoreSettings",
        "image-reward": "cgrpo.rewards.image_reward:ImageRewardSettings",
        "hpsv3": "cgrpo.rewards.hpsv3:HpsV3Settings",
        "remote": "cgrpo.rewards.remote:RemoteSettings",
        "vlm": "cgrpo.rewards.vlm:VlmSettings",
    },
)


def _of_type(table: Any) -> Any:
    """A table as the settings of the type it names; anything else as it is."""
    if not isinstance(table, dict):
        return table
    name = str(table.get("type", ""))
    if ":" in name:
        return FunctionSettings.model_validate(table)
    try:
        settings = REWARDS.load(name)
    except UserError as error:
        reason = f"{error}; a function of yours is package.module:function"
        raise PydanticCustomError("reward_type", "{reason}", {"reason": reason}) from None
    if not (isinstance(settings, type) and issubclass(settings, RewardSettings)):
        reason = f"{settings!r} is no subclass of cgrpo.rewards.RewardSettings"
        raise PydanticCustomError("reward_type", "{reason}", {"reason": reason})
    return settings.model_validate(table)


AnyReward = Annotated[SerializeAsAny[RewardSettings], BeforeValidator(_of_type)]
"""The settings of any type of reward, for a field of a configuration."""


def read_settings(table: dict[str, Any], origin: str) -> RewardSettings:
    """The settings of one reward from a table. Raises UserError, which opens with ``origin``."""
    try:
        return TypeAdapter(AnyReward).validate_python(table)
    except ValidationError as error:
        raise UserError(f"{origin}: {first_fault(error)}") from None


def conversions() -> dict[str, type[RewardSettings]]:
    """The published forms that ``convert_reward`` reads, and the type of reward that each belongs to."""
    types = (REWARDS.load(name) for name in REWARDS.names())
    return {form: settings for settings in types for form in settings.conversions}


def convert_reward(file: Path, form: str, out: Path, reference: str = "") -> Path:
    """Published weights in pickled form as ``out``, in safetensors; nothing in the pickle is run. Raises UserError.

    ``form``: one of ``conversions``, or "folder" for a transformers checkpoint that is a pytorch_model.bin alone.
    ``reference``: folder or hub id of the configuration and tokenizer; by default the published one.
    """
    if form == "folder":
        from cgrpo.rewards.convert import convert_folder

        if not reference:
            raise UserError("--to folder needs --reference: the folder or hub id of its configuration and tokenizer")
        return convert_folder(file, out, locate(reference, "settings"))
    forms = conversions()
    if form not in forms:
        raise UserError(f"--to {form}: must be one of {', '.join(forms)}, folder")
    return forms[form].convert(form, file, out, reference or forms[form].conversions[form])


def make_reward(name: str, settings: RewardSettings, device: torch.device | str = "cpu") -> Reward:
    """The reward that ``settings`` describe, computing on ``device``; ``name`` is for messages. Raises UserError."""
    for line in settings.missing():
        raise UserError(f"reward {name!r}: {line}")
    offloads = isinstance(settings, ModelSettings) and settings.offload
    with failing(f"reward {name!r} can't be built"):
        reward = settings.build(name, "cpu" if offloads else device)
        if not callable(reward) or reward.axis not in get_args(Axis) or not isinstance(reward.unit, str):
            raise TypeError(f"{type(reward).__name__} is no Reward with an axis and a unit")
    return Offloaded(reward, device) if offloads else reward


def make_rewards(rewards: Mapping[str, RewardSettings], device: torch.device | str = "cpu") -> dict[str, Reward]:
    """The rewards by name, in the settings' order."""
    return {name: make_reward(name, settings, device) for name, settings in rewards.items()}


def load_reward(
    type: str, path: str | Path | None = None, *, device: torch.device | str = "cpu", **settings: Any
) -> Reward:
    """A reward for use from Python: "dino-seg", "clip", ... (docs/reference/rewards.md), called with (images, batch).

    ``path`` is its checkpoint (default: that type's own, for some the toybox's); ``settings`` as in the
    configuration's table of that type. Raises UserError.
    """
    table = {"type": type, **({} if path is None else {"path": str(path)}), **settings}
    return make_reward("reward", read_settings(table, f"reward {type!r}"), device)
