"""What a benchmark says of itself in benchmark.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cgrpo.evaluation.benchmark.suite import Suite
from cgrpo.evaluation.metrics import Scorer, describe_metrics


def describe(suite: Suite, out: Path, methods: Mapping[str, Path], metrics: Mapping[str, Scorer]) -> dict[str, Any]:
    """What benchmark.json says of the scores in ``out``.

    ``{benchmark, conditions, facts, data, references: {subject: pictures}, methods: {name: folder}, metrics:
    {name: {role, axis, unit, checkpoint}}}``. Folders below ``out`` are relative to it, so that it can be moved.
    """

    def place(folder: Path) -> str:
        whole, home = folder.resolve(), out.resolve()
        return str(whole.relative_to(home) if whole.is_relative_to(home) else whole)

    return {
        "benchmark": suite.name,
        "conditions": dict(suite.conditions),
        "facts": dict(suite.facts),
        "data": place(suite.root),
        "references": suite.references,
        "methods": {name: place(folder) for name, folder in methods.items()},
        "metrics": describe_metrics(metrics),
    }
