"""From the configuration to what is analysed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch

from cgrpo.analysis import AnalysisInputs
from cgrpo.build.data import make_source
from cgrpo.build.policy import make_policy
from cgrpo.config import TOYBOX, Config
from cgrpo.data import Source, ToyboxSource
from cgrpo.errors import UserError
from cgrpo.rewards import make_rewards

Split = Literal["train", "validation", "test"]


def make_subject(
    cfg: Config,
    adapter: Path | None,
    device: torch.device | str = "cpu",
    *,
    split: Split = "train",
    seed: int = 0,
    tick: Callable[[int], object] = lambda done: None,
) -> AnalysisInputs:
    """The policy with ``adapter`` (None: untrained), its rewards, and tasks of ``split``. Raises UserError."""
    source = _source(cfg, split)
    policy = make_policy(cfg, device, adapter)
    return AnalysisInputs(cfg, policy, make_rewards(cfg.rewards, device), source, seed, tick)


def _source(cfg: Config, split: Split) -> Source:
    if split == "train":
        return make_source(cfg)
    if cfg.data.source != TOYBOX:
        raise UserError(f"--split {split}: the data set {cfg.data.source} has no splits; only the toy world has")
    return ToyboxSource(0, split, cfg.data.dial)
