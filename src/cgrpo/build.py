"""From a configuration to objects: policy, tasks, and what an analysis takes. Policies and rewards build
themselves; here the settings of several tables meet."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch

from cgrpo.analysis import AnalysisInputs
from cgrpo.config import TOYBOX, Config, parse_config, with_batches
from cgrpo.data import ManifestSource, PairSource, Source, toy_source
from cgrpo.errors import UserError, page
from cgrpo.policies.base import Making, Policy
from cgrpo.policies.build import family_of
from cgrpo.rewards import make_rewards
from cgrpo.section import TOYBOX_WORLDS
from cgrpo.training.preference.settings import PreferenceConfig

Split = Literal["train", "validation", "test"]


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
    return family_of(cfg.policy).make(cfg.policy, Making(device, adapter, seed, cache, spread, called))


def load_policy(
    path: str = TOYBOX, adapter: str | Path | None = None, *, device: torch.device | str = "cpu", **settings: Any
) -> Policy:
    """A policy for use from Python: whatever ``policy.path`` may be, with an adapter file or folder on top.

    ``settings`` are those of the configuration's policy table (height, width, reference_size, guidance, start, ...).
    """
    cfg = parse_config({"policy": {"path": path, **settings}}, "load_policy")
    return make_policy(cfg, device, None if adapter is None else Path(adapter))


def make_source(cfg: Config) -> Source:
    """The training tasks; where pairs are given, theirs."""
    if isinstance(cfg, PreferenceConfig) and cfg.preference.pairs:
        return PairSource(Path(cfg.preference.pairs), cfg.policy.reference_alpha, cfg.data.limit)
    if cfg.data.source in TOYBOX_WORLDS:
        world = toy_source(cfg.data.source, cfg.training.seed, "train", cfg.data.dial)
        world.size = cfg.data.limit or None
        return world
    source = make_manifest(cfg, cfg.data.source, cfg.data.root, cfg.data.limit)
    if source.left_out:
        reason = f"{source.left_out} rows are left out by the data set's own quality filter ({page('reference/data')})"
        print(f"cgrpo: {cfg.data.source}: {reason}", file=sys.stderr)
    return source


def make_manifest(cfg: Config, path: str, root: str = "", limit: int = 0) -> ManifestSource:
    """The tasks of a data set, the first ``limit`` of them (0: all), read as the policy takes its references."""
    return ManifestSource(Path(path), cfg.policy.reference_alpha, Path(root) if root else None, limit)


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
    source = _split_source(cfg, split)
    policy = make_policy(cfg, device, adapter)
    return AnalysisInputs(with_batches(cfg), policy, make_rewards(cfg.rewards, device), source, seed, tick)


def _split_source(cfg: Config, split: Split) -> Source:
    if split == "train":
        return make_source(cfg)
    if cfg.data.source not in TOYBOX_WORLDS:
        raise UserError(f"--split {split}: the data set {cfg.data.source} has no splits; only the toy world has")
    return toy_source(cfg.data.source, 0, split, cfg.data.dial)
