"""Fixtures: the tiny checkpoint folder of tiny_flux.py and its policy."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cgrpo.policies import FluxPolicy

sys.path.insert(0, str(Path(__file__).parent))  # helpers import under any of pytest's import modes

from tiny_flux import build_folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_folder(tmp_path_factory.mktemp("flux"))


@pytest.fixture(scope="session")
def tiny_policy(tiny_folder: Path) -> FluxPolicy:
    """Shared: tests that add an adapter load their own."""
    return FluxPolicy.from_folder(tiny_folder, height=32, width=48, reference_size=32)
