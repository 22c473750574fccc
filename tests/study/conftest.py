from pathlib import Path

import pytest
from support.studies import evaluated, small_study

from cgrpo.study.manifest import Study


@pytest.fixture(scope="session")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods on 24 subject-prompt pairs, as ``cgrpo evaluate`` leaves them."""
    return evaluated(tmp_path_factory.mktemp("study") / "scores")


@pytest.fixture
def made(scores: Path, tmp_path: Path) -> tuple[Study, Path, list[str]]:
    """A study, its folder, and its tokens: the administrator's, then the raters'."""
    study, tokens = small_study(scores, tmp_path / "study")
    return study, tmp_path / "study", tokens
