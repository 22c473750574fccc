"""From the configuration to a policy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cgrpo.config import TOYBOX, Config, parse_config
from cgrpo.errors import UserError
from cgrpo.hub import asset, locate
from cgrpo.policies.base import Policy
from cgrpo.policies.checkpointing import set_checkpointing
from cgrpo.policies.checkpoints.flux2 import flux2_places, is_flux2
from cgrpo.policies.checkpoints.loading import Checkpoint, part_places
from cgrpo.policies.encodings.mark import EncodingMark, Flux2Mark, encoding_mark, flux2_mark
from cgrpo.policies.encodings.store import EncodingStore
from cgrpo.policies.flux.policy import FluxPolicy
from cgrpo.policies.flux2.policy import Flux2Policy
from cgrpo.policies.quantise import quantise_blocks
from cgrpo.section import TOYBOX_POLICIES

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


def make_policy(
    cfg: Config,
    device: torch.device | str = "cpu",
    adapter: Path | None = None,
    *,
    spread: bool = False,
    called: str = "",
) -> Policy:
    """The base policy with ``adapter`` (a file or folder), or with a fresh one that, for now, changes nothing.

    ``spread``: the transformer stays on the CPU, since its blocks are about to be spread over processes. ``called``:
    what adapters of it say that they were trained on, where that isn't policy.path.
    """
    settings = cfg.policy
    small = settings.quantise == "int8"  # and made so on the CPU: whole, the base may not fit where it is going
    policy = _make_base(cfg, torch.device(device), spread or small)
    policy.origin = replace(
        policy.origin, base=called or settings.path
    )  # as the user calls it, not where the package lies
    start = locate(settings.start, "file") if settings.start else None
    if start and settings.start_mode == "merge":
        policy.begin_with(start, "merge")
    if small:
        quantise_blocks(policy.transformer, policy.layout)
        if not spread:
            policy.transformer.to(policy.device)
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


def _make_base(cfg: Config, device: torch.device, spread: bool) -> FluxPolicy | Flux2Policy:
    """The policy of the family that the checkpoint is of."""
    settings, checkpoint = cfg.policy, make_checkpoint(cfg)
    given: dict[str, Any] = {
        "height": settings.height,
        "width": settings.width,
        "reference_size": settings.reference_size,
        "several_size": settings.several_size,
        "rule": settings.reference_rule,
        "guidance": settings.guidance,
        "evaluation_guidance": settings.evaluation_guidance,
        "dtype": DTYPES[settings.dtype],
        "device": device,
        "offload": settings.offload,
        "spread": spread,
        "posterior": settings.reference_latents,
        "store": EncodingStore.open(Path(cfg.data.cache), make_mark(cfg)) if cfg.data.cache else None,
    }
    if is_flux2(checkpoint):
        return Flux2Policy.from_folder(checkpoint, guidance_gradient=settings.guidance_gradient, **given)
    if settings.guidance_gradient != "both":
        raise UserError(
            f"policy.guidance_gradient = {settings.guidance_gradient}: this policy is guided within one forward, "
            "without a negative prompt; leave it out"
        )
    return FluxPolicy.from_folder(checkpoint, pe=settings.position_ids, **given)


def make_checkpoint(cfg: Config) -> Checkpoint:
    """Where the base's parts lie."""
    settings = cfg.policy
    transformer = TOYBOX_POLICIES.get(settings.path)
    path = str(asset("policy")) if transformer else settings.path
    return Checkpoint(path, settings.autoencoder, settings.clip, settings.t5, transformer or "transformer")


def make_mark(cfg: Config) -> EncodingMark | Flux2Mark:
    """What encodings of prompts and references depend on."""
    settings, checkpoint = cfg.policy, make_checkpoint(cfg)
    places, marked = (flux2_places, flux2_mark) if is_flux2(checkpoint) else (part_places, encoding_mark)
    return marked(
        **places(checkpoint),
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
