"""From the configuration to a source of tasks."""

from __future__ import annotations

import functools
from pathlib import Path

from cgrpo.config import (
    TOYBOX,
    Config,
)
from cgrpo.data import ManifestSource, Source, ToyboxSource
from cgrpo.policies import read_picture


def make_source(cfg: Config) -> Source:
    """The training tasks."""
    if cfg.data.source == TOYBOX:
        return ToyboxSource(cfg.training.seed, "train", cfg.data.dial)
    return make_manifest(cfg, cfg.data.source)


def make_manifest(cfg: Config, path: str) -> ManifestSource:
    """The tasks of a data set, read as the policy takes its references."""
    return ManifestSource(Path(path), functools.partial(read_picture, alpha=cfg.policy.reference_alpha))
