"""One metric of base against trained, as summaries and checks keep it, and what its interval says.

``{role, axis, base, trained, difference, low, high}``; a number that does not exist is NaN, or None once written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

from torch import Tensor

from cgrpo.evaluation.scores import Scorer
from cgrpo.evaluation.statistics.paired import paired_difference
from cgrpo.files import to_float


def metric_of(scorer: Scorer, base_N: Tensor, trained_N: Tensor, cluster_N: Tensor) -> dict[str, Any]:
    """What a scorer says of two arms' pictures of the same N tasks."""
    known = {"role": scorer.role, "axis": scorer.score.axis}
    return known | asdict(paired_difference(base_N, trained_N, cluster_N))


def movement(metric: Mapping[str, Any]) -> Literal["rose", "fell", "unclear"]:
    """ "rose" or "fell" when the interval from ``low`` to ``high`` lies on one side of 0, else "unclear"."""
    low, high = to_float(metric.get("low")), to_float(metric.get("high"))
    return "rose" if low > 0 else "fell" if high < 0 else "unclear"
