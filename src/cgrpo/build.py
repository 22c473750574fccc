"""The composition root: configuration -> objects. The only file that knows every name."""

from __future__ import annotations

import functools
import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cgrpo.config import (
    TOYBOX,
    ClipSettings,
    Config,
    DinoSegSettings,
    FunctionSettings,
    HpsV3Settings,
    RewardSettings,
    parse_config,
)
from cgrpo.data import ManifestSource, Source, ToyboxSource
from cgrpo.errors import UserError
from cgrpo.evaluation.heldout import Scorer
from cgrpo.hub import locate
from cgrpo.policies import FluxPolicy, add_adapter, load_adapter, read_picture
from cgrpo.policies.checkpointing import set_checkpointing
from cgrpo.policies.checkpoints.loading import Checkpoint, part_places
from cgrpo.policies.encodings.mark import EncodingMark, encoding_mark
from cgrpo.policies.encodings.store import EncodingStore
from cgrpo.policies.quantise import quantise_blocks
from cgrpo.rewards import FunctionReward, Reward
from cgrpo.rewards.clip import ClipText
from cgrpo.rewards.dino import DinoSeg
from cgrpo.rewards.hpsv3 import HPSv3
from cgrpo.rewards.open_vocabulary import load_segmenter
from cgrpo.rewards.segment import Segmenter
from cgrpo.toybox.assets import asset
from cgrpo.toybox.judges import CopyPaste, IdentityReadBack, PromptReadBack, Reader

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


def make_policy(
    cfg: Config, device: torch.device | str = "cpu", adapter: Path | None = None, *, spread: bool = False
) -> FluxPolicy:
    """The base policy with ``adapter`` (a file or folder), or with a fresh one that, for now, changes nothing.

    ``spread``: the transformer stays on the CPU, since its blocks are about to be spread over processes.
    """
    settings = cfg.policy
    policy = FluxPolicy.from_folder(
        make_checkpoint(cfg),
        height=settings.height,
        width=settings.width,
        reference_size=settings.reference_size,
        guidance=settings.guidance,
        pe=settings.position_ids,
        rule=settings.reference_rule,
        several_size=settings.several_size,
        dtype=DTYPES[settings.dtype],
        device=device,
        offload=settings.offload,
        spread=spread,
        posterior=settings.reference_latents,
        store=EncodingStore.open(Path(cfg.data.cache), make_mark(cfg)) if cfg.data.cache else None,
    )
    policy.origin = replace(policy.origin, base=settings.path)  # as the user calls it, not where the package lies
    start = locate(settings.start, "file") if settings.start else None
    if start and settings.start_mode == "merge":
        policy.begin_with(start, "merge")
    if settings.quantise == "int8":
        quantise_blocks(policy.transformer)
    if start and settings.start_mode == "continue":
        policy.begin_with(start, "continue")
    if adapter is not None:
        load_adapter(policy.transformer, adapter, policy.origin)
    elif not (start and settings.start_mode == "continue"):
        add_adapter(policy.transformer, settings.rank, cfg.training.seed)
    set_checkpointing(policy.transformer, settings.checkpointing)
    if settings.compile:
        policy.compile(settings.compile)
    return policy


def make_checkpoint(cfg: Config) -> Checkpoint:
    """Where the base's parts lie."""
    settings = cfg.policy
    path = str(asset("policy")) if settings.path == TOYBOX else settings.path
    return Checkpoint(path, settings.autoencoder, settings.clip, settings.t5)


def make_mark(cfg: Config) -> EncodingMark:
    """What encodings of prompts and references depend on."""
    settings = cfg.policy
    return encoding_mark(
        **part_places(make_checkpoint(cfg)),
        rule=settings.reference_rule,
        long_side=settings.reference_size,
        posterior=settings.reference_latents,
        dtype=settings.dtype,
    )


def _folder(path: str, part: str) -> Path:
    """A checkpoint's folder, fetched from the hub where it is a name there; "toybox" is the package's own."""
    return asset(part) if path == TOYBOX else locate(path, "folder")


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
    return ManifestSource(Path(cfg.data.source), functools.partial(read_picture, alpha=cfg.policy.reference_alpha))


def make_rewards(cfg: Config, device: torch.device | str = "cpu") -> dict[str, Reward]:
    """The rewards by name, in the configuration's order."""
    return {name: make_reward(name, settings, device) for name, settings in cfg.rewards.items()}


def make_reward(name: str, settings: RewardSettings, device: torch.device | str = "cpu") -> Reward:
    match settings:
        case DinoSegSettings():
            folder, segmenter = _folder(settings.path, "dino"), make_segmenter(settings, device)
            return DinoSeg(folder, segmenter, masks=settings.masks, device=device, chunk=settings.chunk)
        case ClipSettings():
            return ClipText(_folder(settings.path, "clip"), device=device, chunk=settings.chunk)
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
        case FunctionSettings():
            module, _, function = settings.type.partition(":")
            try:
                return FunctionReward(vars(importlib.import_module(module))[function], settings.axis)
            except (ImportError, KeyError) as error:
                raise UserError(f"rewards.{name}.type {settings.type!r}: can't be imported ({error})") from error


def make_segmenter(settings: DinoSegSettings, device: torch.device | str = "cpu") -> Segmenter | None:
    """SAM behind a detector, SAM 3, or a Segformer with a closed vocabulary; None where nothing is segmented."""
    if settings.masks == "none" or not settings.segmenter:
        return None
    detector = locate(settings.detector, "folder") if settings.detector else None
    return load_segmenter(_folder(settings.segmenter, "segmenter"), detector, device)


def make_scorers(rewards: dict[str, Reward]) -> dict[str, Scorer]:
    """The rewards trained on, the toybox's judges, and a guard."""
    reader = Reader(asset("reader"))
    return {name: Scorer("reward", reward) for name, reward in rewards.items()} | {
        "identity_readback": Scorer("judge", IdentityReadBack(reader)),
        "prompt_readback": Scorer("judge", PromptReadBack(reader)),
        "copy_paste": Scorer("guard", CopyPaste()),
    }
