"""Rows of runs from before these had the schema of a benchmark's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cgrpo.evaluation.scores.rows import ScoreRow, protocol_of


def earlier_metrics(run: Path) -> dict[str, Any]:
    """What a run's summary says of its metrics; {} without one."""
    try:
        return json.loads((run / "summary.json").read_text(encoding="utf-8-sig"))["metrics"]
    except (OSError, ValueError, KeyError):
        return {}


def earlier_row(table: Mapping[str, Any], metrics: Mapping[str, Any]) -> ScoreRow:
    """``{task, arm, metric, score}`` as a row; ``metrics`` as from ``earlier_metrics``.

    What it lacks is in the task's name, "test-3-1" for subject 3 and its prompt 1, and in what the summary says. Raises
    LookupError for a metric that isn't in the summary, ValueError for another task.
    """
    metric, score = table["metric"], table["score"]
    _, subject, prompt = table["task"].split("-")
    return ScoreRow(
        method=table["arm"],
        subject=f"toy{int(subject):02d}",
        prompt_index=int(prompt),
        prompt=None,
        seed=0,
        metric=metric,
        protocol=protocol_of(metrics[metric]["role"], metrics[metric]["axis"]),
        score=score,
        picture="",
        error=None if score is not None else f"{metric} could not score it",
    )
