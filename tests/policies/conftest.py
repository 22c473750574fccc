"""Fixtures: a tiny checkpoint folder of every family, and the first one's policy."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from support import tiny_flux2, tiny_qwen, tiny_qwen21
from support.policies import from_folder
from support.tiny_flux import build_folder

from cgrpo.policies.flux.policy import FluxPolicy


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_folder(tmp_path_factory.mktemp("flux"))


@pytest.fixture(scope="session")
def tiny_flux2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_flux2.build_folder(tmp_path_factory.mktemp("flux2"))


@pytest.fixture(scope="session")
def tiny_qwen_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_qwen.build_folder(tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="session")
def tiny_qwen21_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_qwen21.build_folder(tmp_path_factory.mktemp("qwen21"))


@pytest.fixture(scope="session")
def tiny_policy(tiny_folder: Path) -> FluxPolicy:
    """Shared: tests that add an adapter load their own."""
    return from_folder(FluxPolicy, tiny_folder, height=32, width=48, reference_size=32)


@pytest.fixture(scope="session")
def references() -> tuple[Image.Image, ...]:
    """Of unequal sizes, one of which is no whole number of tokens; stock pipelines take none below 64 pixels."""
    return tuple(Image.effect_noise(size, 80).convert("RGB") for size in ((64, 64), (70, 100), (128, 64)))
