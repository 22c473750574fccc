"""Reports written without drawing their plots, which are half of a small run's time; test_report draws them."""

from __future__ import annotations

import io
from typing import Any

import pytest
from matplotlib.figure import Figure


def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots inside pages are empty ones; pictures in files are drawn."""
    draw = Figure.savefig

    def blank(self: Figure, target: Any, **settings: Any) -> None:
        if isinstance(target, io.StringIO):
            target.write('<svg viewBox="0 0 1 1"></svg>')
        else:
            draw(self, target, **settings)

    monkeypatch.setattr(Figure, "savefig", blank)
