"""From the configuration to a policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from cgrpo.config import TOYBOX, Config, parse_config
from cgrpo.policies import build
from cgrpo.policies.base import Policy


def make_policy(
    cfg: Config,
    device: torch.device | str = "cpu",
    adapter: Path | None = None,
    *,
    spread: bool = False,
    called: str = "",
) -> Policy:
    """The configuration's policy with ``adapter``, or with a fresh one of the run's seed; see ``Policy.make``."""
    seed, cache = cfg.training.seed, cfg.data.cache
    return build.make_policy(cfg.policy, device, adapter, seed=seed, cache=cache, spread=spread, called=called)


def load_policy(
    path: str = TOYBOX, adapter: str | Path | None = None, *, device: torch.device | str = "cpu", **settings: Any
) -> Policy:
    """A policy for use from Python: whatever ``policy.path`` may be, with an adapter file or folder on top.

    ``settings`` are those of the configuration's policy table (height, width, reference_size, guidance, start, ...).
    """
    cfg = parse_config({"policy": {"path": path, **settings}}, "load_policy")
    return make_policy(cfg, device, None if adapter is None else Path(adapter))
