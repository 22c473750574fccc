"""From the configuration to rewards, segmenters and scorers: where every reward's type gets its class."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch

from cgrpo.config import (
    TOYBOX,
    AestheticSettings,
    ClipImageSettings,
    ClipSettings,
    Config,
    DinoSegSettings,
    DinoSettings,
    FunctionSettings,
    HpsV2Settings,
    HpsV3Settings,
    ImageRewardSettings,
    ModelSettings,
    PickScoreSettings,
    RemoteSettings,
    RewardSettings,
    VlmSettings,
    parse_config,
)
from cgrpo.errors import UserError
from cgrpo.evaluation.metrics import Scorer
from cgrpo.hub import asset, locate
from cgrpo.rewards import FunctionReward, Offloaded, Reward
from cgrpo.rewards.aesthetic import Aesthetic
from cgrpo.rewards.clip import ClipImage, ClipText
from cgrpo.rewards.dino import DinoSeg
from cgrpo.rewards.dino_v1 import DinoV1
from cgrpo.rewards.hpsv3 import HPSv3
from cgrpo.rewards.image_reward import ImageReward
from cgrpo.rewards.measures import copy_measures
from cgrpo.rewards.open_vocabulary import load_segmenter
from cgrpo.rewards.preference import HPSv2, PickScore
from cgrpo.rewards.remote import RemoteReward
from cgrpo.rewards.segment import Segmenter
from cgrpo.rewards.vlm import VlmJudge
from cgrpo.toybox.judges import IdentityReadBack, PromptReadBack, Reader


def _folder(path: str, part: str) -> Path:
    """A checkpoint's folder, fetched from the hub where it is a name there; "toybox" is the package's own."""
    return asset(part) if path == TOYBOX else locate(path, "folder")


def make_rewards(cfg: Config, device: torch.device | str = "cpu") -> dict[str, Reward]:
    """The rewards by name, in the configuration's order."""
    return {name: make_reward(name, settings, device) for name, settings in cfg.rewards.items()}


def make_reward(name: str, settings: RewardSettings, device: torch.device | str = "cpu") -> Reward:
    """The reward that ``settings`` describe, computing on ``device``; ``name`` is for messages. Raises UserError."""
    if isinstance(settings, ModelSettings) and settings.offload:
        return Offloaded(_reward(name, settings, "cpu"), device)
    return _reward(name, settings, device)


def _reward(name: str, settings: RewardSettings, device: torch.device | str) -> Reward:
    match settings:
        case DinoSegSettings():
            folder, segmenter = _folder(settings.path, "dino"), make_segmenter(settings, device)
            return DinoSeg(folder, segmenter, masks=settings.masks, device=device, chunk=settings.chunk)
        case DinoSettings():
            return DinoV1(locate(settings.path, "folder"), device=device, chunk=settings.chunk)
        case ClipSettings():
            return ClipText(_folder(settings.path, "clip"), device=device, chunk=settings.chunk)
        case ClipImageSettings():
            return ClipImage(_folder(settings.path, "clip"), device=device, chunk=settings.chunk)
        case AestheticSettings():
            folder, head = locate(settings.path, "folder"), locate(settings.head, "file")
            return Aesthetic(folder, head, device=device, chunk=settings.chunk)
        case HpsV2Settings():
            return HPSv2(locate(settings.path, "folder"), device=device, chunk=settings.chunk)
        case PickScoreSettings():
            beside = locate(settings.processor, "settings") if settings.processor else None
            folder = locate(settings.path, "folder")
            return PickScore(folder, settings=beside, device=device, chunk=settings.chunk)
        case ImageRewardSettings():
            return ImageReward(locate(settings.path, "folder"), device=device, chunk=settings.chunk)
        case HpsV3Settings():
            return HPSv3(
                locate(settings.path, "file"),
                locate(settings.backbone, "settings"),
                template=Path(settings.template) if settings.template else None,
                device=device,
                dtype=settings.dtype,
                rotary=settings.rotary,
                chunk=settings.chunk,
            )
        case RemoteSettings():
            return RemoteReward(
                name,
                settings.url,
                settings.reward,
                axis=settings.axis,
                checkpoint=settings.checkpoint,
                token_variable=settings.token_variable,
                timeout=settings.timeout,
                patience=settings.patience,
                on_failure=settings.on_failure,
            )
        case VlmSettings():
            return VlmJudge(settings)
        case FunctionSettings():
            module, _, function = settings.type.partition(":")
            try:
                return FunctionReward(vars(importlib.import_module(module))[function], settings.axis)
            except (ImportError, KeyError) as error:
                raise UserError(f"rewards.{name}.type {settings.type!r}: can't be imported ({error})") from error


def load_reward(type: str, path: str | None = None, *, device: torch.device | str = "cpu", **settings: Any) -> Reward:
    """A reward for use from Python: "dino-seg", "clip", "hpsv3", ... (docs/config.md), called with (images, batch).

    ``path`` is its checkpoint (default: that type's own, for some the toybox's); ``settings`` as in the
    configuration's table of that type.
    """
    table = {"type": type, **({} if path is None else {"path": path}), **settings}
    return make_reward("reward", parse_config({"rewards": {"reward": table}}, "load_reward").rewards["reward"], device)


def make_segmenter(settings: DinoSegSettings, device: torch.device | str = "cpu") -> Segmenter | None:
    """SAM behind a detector, SAM 3, or a Segformer with a closed vocabulary; None where nothing is segmented."""
    if settings.masks == "none" or not settings.segmenter:
        return None
    detector = locate(settings.detector, "folder") if settings.detector else None
    return load_segmenter(_folder(settings.segmenter, "segmenter"), detector, device)


def make_scorers(rewards: dict[str, Reward], judges: dict[str, Reward], copies: float = 0.0) -> dict[str, Scorer]:
    """The rewards trained on, judges, and measures of copying; ``copies`` as evaluation.copies."""
    judged = {name: Scorer("judge", judge) for name, judge in judges.items()}
    measured = {name: Scorer("guard", measure) for name, measure in copy_measures(copies).items()}
    return as_rewards(rewards) | judged | measured


def as_rewards(rewards: dict[str, Reward]) -> dict[str, Scorer]:
    """The rewards trained on, as scorers."""
    return {name: Scorer("reward", reward) for name, reward in rewards.items()}


def make_judges() -> dict[str, Reward]:
    """The toy world's judges, never trained on."""
    reader = Reader(asset("reader"))
    return {"identity_readback": IdentityReadBack(reader), "prompt_readback": PromptReadBack(reader)}
