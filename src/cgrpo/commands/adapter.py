"""`cgrpo adapter`: the base that a recipe describes, for the functions of policies/adapters/exchange.py."""

from __future__ import annotations

from pathlib import Path

from cgrpo.build import make_checkpoint
from cgrpo.config import Config
from cgrpo.hub import locate
from cgrpo.policies.adapters.exchange import convert_adapter, inspect_adapter
from cgrpo.policies.adapters.exchange import merge_adapter as merge

__all__ = ["convert_adapter", "inspect_adapter", "merge_adapter"]


def merge_adapter(file: Path, cfg: Config, out: Path) -> Path:
    """A whole diffusers folder: ``cfg``'s base, its start where that is merged in, and the adapter."""
    merged = cfg.policy.start and cfg.policy.start_mode == "merge"
    return merge(file, make_checkpoint(cfg), out, locate(cfg.policy.start, "file") if merged else None)
