"""Identity against prompt following: which methods no other beats on both, and how much area they command."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cgrpo.evaluation.statistics.cells import Cell, Pair, pair_means
from cgrpo.scores import COPY, PROMPT_ONLY, REAL, RESERVED, Column

Point = tuple[float, float]
RESAMPLES = 2000
SEED = 0


@dataclass(frozen=True)
class Tradeoff:
    """One identity column against one prompt column.

    points            (identity, prompt) means by method, reference rows with both scores included
    ceiling           identity of real photographs of the same thing; NaN without
    origin            the hypervolume's reference point, and in words where it comes from
    front             methods that no other method matches or beats on both axes, best identity first
    hypervolume       area that the methods dominate above the origin, in the product of the two units, with the 95 %
                      percentile interval over resampled subjects, the origin held fixed
    areas             the same of each method alone
    dominance         by method: share of resampled subjects' draws in which it beats the baseline on both axes
    """

    identity: str
    prompt: str
    points: dict[str, Point]
    ceiling: float
    origin: Point
    origin_rule: str
    front: list[str]
    hypervolume: float
    low: float
    high: float
    areas: dict[str, float]
    dominance: dict[str, float]


def hypervolume(points: Sequence[Point], origin: Point) -> float:
    """Area of the union of the rectangles from ``origin`` up to each point; points not above it on both add nothing."""
    area, height = 0.0, origin[1]
    for x, y in sorted(points, reverse=True):
        if x > origin[0] and y > height:
            area += (x - origin[0]) * (y - height)
            height = y
    return area


def pareto_front(points: Mapping[str, Point]) -> list[str]:
    """Names of the points that no other equals or exceeds on both axes while exceeding it on one; best x first."""

    def beaten(name: str) -> bool:
        x, y = points[name]
        return any(u >= x and v >= y and (u, v) != (x, y) for u, v in points.values())

    return sorted((name for name in points if not beaten(name)), key=lambda name: points[name], reverse=True)


def tradeoff(
    identity: Column,
    prompt: Column,
    cells: Mapping[Column, Mapping[str, dict[Pair, Cell]]],
    methods: Sequence[str],
    baseline: str,
) -> Tradeoff | None:
    """None unless some method has scores in both columns."""
    tables = [{name: pair_means(pairs) for name, pairs in cells[column].items()} for column in (identity, prompt)]
    points = {name: _point(tables, name) for name in (*methods, *RESERVED)}
    points = {name: point for name, point in points.items() if not any(map(math.isnan, point))}
    placed = [name for name in methods if name in points]
    if not placed:
        return None
    origin, rule = _origin(points)
    drawn_DM2 = _resampled(tables, placed)
    volumes = [hypervolume([(x, y) for x, y in draw], origin) for draw in drawn_DM2.tolist()]
    low, high = np.quantile(volumes, (0.025, 0.975)).tolist() if volumes else (math.nan, math.nan)
    dominance = {}
    if baseline in placed and len(drawn_DM2):
        better_DM = np.all(drawn_DM2 > drawn_DM2[:, [placed.index(baseline)]], axis=2)
        dominance = {n: float(better_DM[:, m].mean()) for m, n in enumerate(placed) if n != baseline}
    return Tradeoff(
        identity.label,
        prompt.label,
        points,
        _mean(tables[0].get(REAL, {})),
        origin,
        rule,
        pareto_front({name: points[name] for name in placed}),
        hypervolume([points[name] for name in placed], origin),
        low,
        high,
        {name: hypervolume([points[name]], origin) for name in placed},
        dominance,
    )


def _mean(means: Mapping[Pair, float]) -> float:
    return sum(means.values()) / len(means) if means else math.nan


def _point(tables: Sequence[Mapping[str, dict[Pair, float]]], name: str) -> Point:
    return _mean(tables[0].get(name, {})), _mean(tables[1].get(name, {}))


def _origin(points: Mapping[str, Point]) -> tuple[Point, str]:
    """What is had for nothing: prompt-only's identity and copy-paste's prompt score; else the worst shown."""
    if COPY in points and PROMPT_ONLY in points:
        return (points[PROMPT_ONLY][0], points[COPY][1]), f"identity of {PROMPT_ONLY}, prompt score of {COPY}"
    worst = min(x for x, _ in points.values()), min(y for _, y in points.values())
    return worst, "the worst of each axis over all rows shown"


def _resampled(tables: Sequence[Mapping[str, dict[Pair, float]]], methods: Sequence[str]) -> NDArray[np.float64]:
    """Means by method on both axes [D, M, 2], all methods on the same resampled subjects; empty below two subjects.

    Only pairs that every method has a score for on both axes take part; subjects weigh alike.
    """
    scored = [table[name] for table in tables for name in methods]
    shared = [pair for pair in scored[0] if all(pair in means for means in scored)]
    subjects = sorted({pair.subject for pair in shared})
    if len(subjects) < 2:
        return np.empty((0, len(methods), 2))
    place = {subject: s for s, subject in enumerate(subjects)}
    means_SM2 = np.zeros((len(subjects), len(methods), 2))
    counts_S = np.zeros(len(subjects))
    for pair in shared:
        counts_S[place[pair.subject]] += 1
        means_SM2[place[pair.subject]] += [[table[name][pair] for table in tables] for name in methods]
    means_SM2 /= counts_S[:, None, None]
    chosen_DS = np.random.default_rng(SEED).integers(len(subjects), size=(RESAMPLES, len(subjects)))
    return means_SM2[chosen_DS].mean(1)
