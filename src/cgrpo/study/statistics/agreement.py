"""Krippendorff's alpha: how far raters agree beyond chance."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cgrpo.study.manifest import FIRST, SECOND, TIE, Study, preferred
from cgrpo.study.store import Response

Level = Literal["nominal", "ordinal", "interval"]
ORDER = {FIRST: 0, TIE: 1, SECOND: 2}


def krippendorff_alpha(units: Iterable[Sequence[float]], level: Level) -> float:
    """Alpha of the values that each unit (item) was given, by any number of raters.

    1 - observed / expected disagreement by coincidences (Krippendorff, Content Analysis, 2004, chapter 11); units with
    fewer than two values do not count. NaN where nothing was rated twice, or all values are equal.
    """
    pairable = [unit for unit in units if len(unit) > 1]
    values = sorted({value for unit in pairable for value in unit})
    if len(values) < 2:
        return math.nan
    place = {value: n for n, value in enumerate(values)}
    met_VV = np.zeros((len(values), len(values)))
    for unit in pairable:
        count_V = np.bincount([place[value] for value in unit], minlength=len(values)).astype(float)
        met_VV += (np.outer(count_V, count_V) - np.diag(count_V)) / (len(unit) - 1)
    total_V = met_VV.sum(0)
    distance_VV = _distances(np.array(values, dtype=float), total_V, level)
    observed = (met_VV * distance_VV).sum() / total_V.sum()
    expected = (np.outer(total_V, total_V) * distance_VV).sum() / (total_V.sum() * (total_V.sum() - 1))
    return float(1 - observed / expected)


def _distances(value_V: NDArray[np.float64], total_V: NDArray[np.float64], level: Level) -> NDArray[np.float64]:
    if level == "nominal":
        return (value_V[:, None] != value_V[None, :]).astype(float)
    if level == "interval":
        return (value_V[:, None] - value_V[None, :]) ** 2
    upto_V = np.cumsum(total_V) - total_V / 2  # of the ranks between two values, both ends half
    return (upto_V[:, None] - upto_V[None, :]) ** 2


def values_by_item(study: Study, responses: Iterable[Response], question: str) -> list[list[float]]:
    """What each real item was given: 0, 1, 2 for first, tie, second, whatever the side; or ratings."""
    items = study.by_id()
    units: dict[str, list[float]] = defaultdict(list)
    for one in responses:
        if one.question == question and items[one.item].kind == "item":
            value = ORDER[preferred(one.choice, one.first_on_left)] if study.mode == "pairwise" else float(one.choice)
            units[one.item].append(value)
    return list(units.values())


def agreement(study: Study, responses: Iterable[Response], question: str, level: Level = "ordinal") -> float:
    """Alpha over real items, of choices by picture (first < tie < second) or of ratings."""
    return krippendorff_alpha(values_by_item(study, responses, question), level)
