"""The composition root: configuration -> objects. The only file that knows every name."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch

from cgrpo.config import TOYBOX, Config, RewardSettings, parse_config
from cgrpo.data import ManifestSource, Source, ToyboxSource
from cgrpo.errors import UserError
from cgrpo.evaluation.heldout import Scorer
from cgrpo.policies import FluxPolicy, add_adapter, load_adapter, read_picture
from cgrpo.rewards import FunctionReward, Reward
from cgrpo.rewards.clip import ClipText
from cgrpo.rewards.dino import DinoSeg
from cgrpo.rewards.segment import Segmenter, SemanticSegmenter
from cgrpo.toybox.assets import asset
from cgrpo.toybox.judges import CopyPaste, IdentityReadBack, PromptReadBack, Reader

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


def make_policy(cfg: Config, device: torch.device | str = "cpu", adapter: Path | None = None) -> FluxPolicy:
    """The base policy with ``adapter`` (a file or folder), or with a fresh one that, for now, changes nothing."""
    settings = cfg.policy
    policy = FluxPolicy.from_folder(
        _folder(settings.path, "policy"),
        height=settings.height,
        width=settings.width,
        reference_size=settings.reference_size,
        guidance=settings.guidance,
        pe=settings.position_ids,
        dtype=DTYPES[settings.dtype],
        device=device,
    )
    if adapter is None:
        add_adapter(policy.transformer, settings.rank, cfg.training.seed)
    else:
        load_adapter(policy.transformer, adapter)
    return policy


def _folder(path: str, part: str) -> Path:
    """A checkpoint's folder; "toybox" is the package's own."""
    return asset(part) if path == TOYBOX else Path(path)


def load_policy(path: str = TOYBOX, adapter: str | Path | None = None, **settings: Any) -> FluxPolicy:
    """A policy for use from Python: a diffusers folder or "toybox", with an adapter file or folder on top.

    ``settings`` are those of the configuration's policy table (height, width, reference_size, guidance, ...).
    """
    cfg = parse_config({"policy": {"path": path, **settings}}, "load_policy")
    return make_policy(cfg, adapter=None if adapter is None else Path(adapter))


def make_source(cfg: Config) -> Source:
    """The training tasks."""
    if cfg.data.source == TOYBOX:
        return ToyboxSource(cfg.training.seed, "train", cfg.data.dial)
    return ManifestSource(Path(cfg.data.source), read_picture)


def make_rewards(cfg: Config) -> dict[str, Reward]:
    """The rewards by name, in the configuration's order."""
    return {name: make_reward(name, settings) for name, settings in cfg.rewards.items()}


def make_segmenter(path: str) -> Segmenter:
    return SemanticSegmenter(_folder(path, "segmenter"))


def make_reward(name: str, settings: RewardSettings) -> Reward:
    match settings.type:
        case "dino-seg":
            return DinoSeg(_folder(settings.path, "dino"), make_segmenter(settings.segmenter))
        case "clip":
            return ClipText(_folder(settings.path, "clip"))
    module, colon, function = settings.type.partition(":")
    if not colon:
        raise UserError(f"rewards.{name}.type {settings.type!r}: must be dino-seg, clip, or package.module:function")
    try:
        return FunctionReward(vars(importlib.import_module(module))[function], settings.axis)
    except (ImportError, KeyError) as error:
        raise UserError(f"rewards.{name}.type {settings.type!r}: can't be imported ({error})") from error


def make_scorers(rewards: dict[str, Reward]) -> dict[str, Scorer]:
    """The rewards trained on, the toybox's judges, and a guard."""
    reader = Reader(asset("reader"))
    return {name: Scorer("reward", reward) for name, reward in rewards.items()} | {
        "identity_readback": Scorer("judge", IdentityReadBack(reader)),
        "prompt_readback": Scorer("judge", PromptReadBack(reader)),
        "copy_paste": Scorer("guard", CopyPaste()),
    }
