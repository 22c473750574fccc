"""From the configuration to a policy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cgrpo.config import TOYBOX, Config, parse_config
from cgrpo.hub import locate
from cgrpo.policies.base import Policy
from cgrpo.policies.checkpointing import set_checkpointing
from cgrpo.policies.checkpoints.loading import Checkpoint, part_places
from cgrpo.policies.encodings.mark import EncodingMark, encoding_mark
from cgrpo.policies.encodings.store import EncodingStore
from cgrpo.policies.flux import FluxPolicy
from cgrpo.policies.quantise import quantise_blocks
from cgrpo.toybox.assets import asset

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


def make_policy(
    cfg: Config, device: torch.device | str = "cpu", adapter: Path | None = None, *, spread: bool = False
) -> Policy:
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
        policy.load_adapter(adapter)
    elif not (start and settings.start_mode == "continue"):
        policy.add_adapter(settings.rank, cfg.training.seed)
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


def load_policy(
    path: str = TOYBOX, adapter: str | Path | None = None, *, device: torch.device | str = "cpu", **settings: Any
) -> Policy:
    """A policy for use from Python: whatever ``policy.path`` may be, with an adapter file or folder on top.

    ``settings`` are those of the configuration's policy table (height, width, reference_size, guidance, start, ...).
    """
    cfg = parse_config({"policy": {"path": path, **settings}}, "load_policy")
    return make_policy(cfg, device, None if adapter is None else Path(adapter))
