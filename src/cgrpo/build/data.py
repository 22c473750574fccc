"""From the configuration to a source of tasks."""

from __future__ import annotations

import sys
from pathlib import Path

from cgrpo.config import TOYBOX, Config, PreferenceConfig
from cgrpo.data import ManifestSource, PairSource, Source, ToyboxSource


def make_source(cfg: Config) -> Source:
    """The training tasks; where pairs are given, theirs."""
    if isinstance(cfg, PreferenceConfig) and cfg.preference.pairs:
        return PairSource(Path(cfg.preference.pairs), cfg.policy.reference_alpha, cfg.data.limit)
    if cfg.data.source == TOYBOX:
        world = ToyboxSource(cfg.training.seed, "train", cfg.data.dial)
        world.size = cfg.data.limit or None
        return world
    source = make_manifest(cfg, cfg.data.source, cfg.data.root, cfg.data.limit)
    if source.left_out:
        told = f"{source.left_out} rows are left out by the data set's own quality filter (docs/data.md)"
        print(f"cgrpo: {cfg.data.source}: {told}", file=sys.stderr)
    return source


def make_manifest(cfg: Config, path: str, root: str = "", limit: int = 0) -> ManifestSource:
    """The tasks of a data set, the first ``limit`` of them (0: all), read as the policy takes its references."""
    return ManifestSource(Path(path), cfg.policy.reference_alpha, Path(root) if root else None, limit)
