"""Fixtures: the tiny checkpoints of tiny_rewards.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import golden_models, open_clip, tiny_rewards


@pytest.fixture(scope="session")
def tiny_dinov2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_rewards.build_dinov2(tmp_path_factory.mktemp("dinov2"))


@pytest.fixture(scope="session")
def tiny_detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_rewards.build_grounding_dino(tmp_path_factory.mktemp("detector"))


@pytest.fixture(scope="session")
def tiny_sam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_rewards.build_sam(tmp_path_factory.mktemp("sam"))


@pytest.fixture(scope="session")
def tiny_hpsv3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_rewards.build_hpsv3(tmp_path_factory.mktemp("hpsv3"))


@pytest.fixture(scope="session")
def golden_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return golden_models.build_openai_clip(tmp_path_factory.mktemp("golden_clip"))


@pytest.fixture(scope="session")
def golden_dino_v1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return golden_models.build_dino_v1(tmp_path_factory.mktemp("golden_dino_v1"))


@pytest.fixture(scope="session")
def tiny_open_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return open_clip.build(tmp_path_factory.mktemp("open_clip"))
