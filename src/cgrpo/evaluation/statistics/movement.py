"""Numbers as they come back from JSON, and what an interval says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal


def to_float(value: Any) -> float:
    """NaN for what is no number: JSON has null for NaN."""
    return float(value) if isinstance(value, int | float) else math.nan


def movement(metric: Mapping[str, Any]) -> Literal["rose", "fell", "unclear"]:
    """ "rose" or "fell" when the interval from ``low`` to ``high`` lies on one side of 0, else "unclear"."""
    low, high = to_float(metric.get("low")), to_float(metric.get("high"))
    return "rose" if low > 0 else "fell" if high < 0 else "unclear"
