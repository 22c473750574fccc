"""`cgrpo adapter`: the base that a recipe describes, for the functions of policies/adapters/exchange.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cgrpo.config import Config
from cgrpo.policies.adapters.blend import blend_adapters
from cgrpo.policies.adapters.exchange import convert_adapter, inspect_adapter
from cgrpo.policies.merge import merge_adapter as merge
from cgrpo.training.record import Record

__all__ = ["blend_runs", "convert_adapter", "inspect_adapter", "merge_adapter"]


def blend_runs(first: Path, others: Sequence[tuple[Path, float]], out: Path) -> Path:
    """The mix of runs' adapters, or of adapter files or folders; see ``blend_adapters``."""
    return blend_adapters(_adapter(first), [(_adapter(run), share) for run, share in others], out)


def _adapter(run: Path) -> Path:
    """A run directory's adapter; anything else is one."""
    return Record(run).adapter if (run / "config.json").exists() else run


def merge_adapter(file: Path, cfg: Config, out: Path) -> Path:
    """A whole diffusers folder: ``cfg``'s base, its start where that is merged in, and the adapter."""
    return merge(file, cfg.policy, out)
