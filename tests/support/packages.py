"""Packages of other people, as far as cgrpo sees them: their entry points."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from pathlib import Path

import pytest

from cgrpo import extensions


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, group: str, names: Mapping[str, str]) -> None:
    """Let a package in ``folder`` add ``names`` ("module:attribute") to an entry point group, for one test."""
    info = folder / "other-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n" + "".join(f"{key} = {v}\n" for key, v in names.items()))
    monkeypatch.syspath_prepend(str(folder))
    importlib.invalidate_caches()
    monkeypatch.setattr(extensions, "installed", functools.cache(extensions.installed.__wrapped__))  # forgets
