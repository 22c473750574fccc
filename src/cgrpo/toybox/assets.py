"""Where the package's own checkpoints lie."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

ASSETS = Path(str(resources.files("cgrpo.toybox") / "assets"))
POLICY = ASSETS / "policy"


def asset(name: str) -> Path:
    """The folder of a toybox checkpoint: policy, segmenter, dino, clip or reader."""
    return ASSETS / name
