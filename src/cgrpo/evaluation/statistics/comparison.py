"""Methods against a baseline: paired differences, intervals over subjects, permutation tests, trade-offs."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cgrpo.errors import UserError
from cgrpo.evaluation.statistics.cells import ALL, Cells, Mean, Pair, gather, groups_of, mean_of, pair_means
from cgrpo.evaluation.statistics.paired import Unit, cluster_numbers, contrast, paired_difference
from cgrpo.evaluation.statistics.tradeoff import RESAMPLES, Tradeoff, tradeoff
from cgrpo.files import without_nan
from cgrpo.scores import COPY, REAL, RESERVED, Column, ScoreRow
from cgrpo.statistics import FLIPS, LEVEL, SEED, Interval, holm

AXES = ("identity", "prompt", "picture")


@dataclass(frozen=True)
class Difference(Interval):
    """A method less the baseline, over the pairs that both have a score for.

    clusters           subjects, or prompts where all pictures show one subject (``Comparison.unit``)
    difference         mean of the clusters' mean differences
    low, high          headline: Student's interval over clusters, for subjects (prompts) like these
    items_low, items_high
                       over pairs around their own mean: for these items only
    improved           share of clusters with a mean difference above 0
    p, p_holm          sign flips over clusters; Holm over all columns x methods. Only in group "all", else NaN
    exact              whether all flips were counted
    """

    method: str
    column: str
    axis: str
    group: str
    clusters: int
    pairs: int
    baseline_mean: float
    method_mean: float
    difference: float
    items_low: float
    items_high: float
    improved: float
    p: float = math.nan
    p_holm: float = math.nan
    exact: bool = False

    @property
    def sure(self) -> bool:
        """Whether the change is more than chance, by the test after correction."""
        return self.p_holm < 0.05

    @property
    def beyond_zero(self) -> bool:
        """Whether the headline interval excludes 0."""
        return self.above() or self.below()

    @property
    def least_p(self) -> float:
        """The smallest p that a test of so many clusters can give."""
        return max(2.0 ** (1 - self.clusters), 1 / (FLIPS + 1))


@dataclass(frozen=True)
class SubjectDifference(Interval):
    """A method less the baseline on one subject; the interval is over its prompts, for these items only."""

    method: str
    column: str
    subject: str
    kind: str
    pairs: int
    difference: float


@dataclass(frozen=True)
class Comparison:
    """Everything that tables, plots and the page show.

    methods: the baseline first; references: reference rows that have scores; columns: labels, identity's first;
    unit: what intervals and tests are over.
    """

    baseline: str
    unit: Unit
    methods: list[str]
    references: list[str]
    columns: list[str]
    means: list[Mean]
    differences: list[Difference]
    subjects: list[SubjectDifference]
    tradeoffs: list[Tradeoff]
    cautions: list[str]
    settings: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; None for NaN."""
        return without_nan(asdict(self))

    def tested(self) -> list[Difference]:
        """The differences over all prompts, which Holm's correction is over."""
        return [difference for difference in self.differences if difference.group == ALL]

    def groups(self) -> list[str]:
        """Groups that any mean was taken over."""
        return list(dict.fromkeys(mean.group for mean in self.means))


def compare_methods(rows: Iterable[ScoreRow], baseline: str | None = None) -> Comparison:
    """Compare all methods in ``rows`` with ``baseline`` (default: the one called "base", else the first).

    Scores are averaged over seeds first, then paired by subject and prompt. Raises UserError for rows without any
    method, or a baseline that is none of them.
    """
    cells = gather(rows)
    columns = sorted(cells, key=lambda column: AXES.index(column.axis))
    names = list(dict.fromkeys(name for column in cells.values() for name in column))
    methods = [name for name in names if name not in RESERVED]
    if not methods:
        raise UserError("no scores of any method to compare", "score one with cgrpo evaluate first")
    baseline = baseline or ("base" if "base" in methods else methods[0])
    if baseline not in methods:
        raise UserError(f"baseline {baseline!r} has no scores", f"choose one of {', '.join(methods)}")
    methods.sort(key=lambda name: name != baseline)
    references = [name for name in RESERVED if name in names]
    shown = {pair.subject for column in columns for name in methods for pair in cells[column].get(name, {})}
    unit: Unit = "prompts" if len(shown) == 1 else "subjects"
    differences = _differences(cells, columns, methods, unit)
    means = _means(cells, columns, [*methods, *references])
    return Comparison(
        baseline,
        unit,
        methods,
        references,
        [column.label for column in columns],
        means,
        differences,
        _by_subject(cells, columns, methods),
        _tradeoffs(cells, columns, methods),
        [*_of_one_subject(shown, methods), *_unpaired(cells, columns, methods), *_cautions(cells, means, methods)],
        {
            "unit": "mean over seeds, then paired differences by subject and prompt",
            "level": LEVEL,
            "interval": f"Student's t over the {unit}' mean differences",
            "items interval": "Student's t over pairs: these items only",
            "test": f"sign flips of the {unit}' mean differences; all where at most {FLIPS}, else {FLIPS} seeded",
            "correction": "Holm over all columns x methods, group all",
            "resamples of subjects": RESAMPLES,
            "seed": SEED,
        },
    )


def _means(cells: Cells, columns: Sequence[Column], names: Sequence[str]) -> list[Mean]:
    means = (
        mean_of(column, name, cells[column].get(name, {}), group)
        for column in columns
        for name in names
        for group in groups_of(cells)
    )
    return [mean for mean in means if mean is not None]


def _paired(cells: Cells, column: Column, method: str, baseline: str, group: str) -> dict[Pair, tuple[float, float]]:
    """(baseline, method) means over seeds of the pairs that both have a score for."""
    base, other = (pair_means(cells[column].get(name, {}), group) for name in (baseline, method))
    return {pair: (base[pair], other[pair]) for pair in base if pair in other}


def _differences(cells: Cells, columns: Sequence[Column], methods: Sequence[str], unit: Unit) -> list[Difference]:
    baseline, *others = methods
    differences = []
    for column in columns:
        for method in others:
            for group in groups_of(cells):
                paired = _paired(cells, column, method, baseline, group)
                if paired:
                    differences.append(_difference(column, method, group, paired, unit))
    adjusted = holm([difference.p for difference in differences])
    return [replace(difference, p_holm=p) for difference, p in zip(differences, adjusted, strict=True)]


def _difference(
    column: Column, method: str, group: str, paired: Mapping[Pair, tuple[float, float]], unit: Unit
) -> Difference:
    base_N, other_N = _arms(paired.values())
    clusters = [pair.prompt if unit == "prompts" else pair.subject for pair in paired]
    result = contrast(base_N, other_N, cluster_numbers(clusters), test=group == ALL)
    headline, items = result.over_clusters, result.over_cases
    names, counts = (method, column.label, column.axis, group), (result.clusters, result.cases)
    numbers = (headline.base, headline.trained, headline.difference, items.low, items.high, result.improved, result.p)
    return Difference(headline.low, headline.high, *names, *counts, *numbers, exact=result.exact)


def _arms(both: Iterable[tuple[float, float]]) -> tuple[Tensor, Tensor]:
    base_N, other_N = torch.tensor(list(both), dtype=torch.float64).unbind(1)
    return base_N, other_N


def _by_subject(cells: Cells, columns: Sequence[Column], methods: Sequence[str]) -> list[SubjectDifference]:
    baseline, *others = methods
    differences = []
    for column in columns:
        for method in others:
            paired = _paired(cells, column, method, baseline, ALL)
            for subject, kind in {pair.subject: pair.subject_kind for pair in paired}.items():
                values = [both for pair, both in paired.items() if pair.subject == subject]
                gap = paired_difference(*_arms(values), torch.arange(len(values)))
                names = (method, column.label, subject, kind)
                differences.append(SubjectDifference(gap.low, gap.high, *names, len(values), gap.difference))
    return differences


def _tradeoffs(cells: Cells, columns: Sequence[Column], methods: Sequence[str]) -> list[Tradeoff]:
    across = [column for column in columns if column.axis == "identity"]
    up = [column for column in columns if column.axis == "prompt"]
    found = (tradeoff(x, y, cells, methods, methods[0]) for x in across for y in up)
    return [one for one in found if one is not None]


def _of_one_subject(shown: Collection[str], methods: Sequence[str]) -> list[str]:
    """What intervals over prompts do not say."""
    if len(shown) > 1 or len(methods) < 2:
        return []
    return [
        f"All pictures show one subject, {next(iter(shown))}: intervals and tests are over its prompts, and nothing "
        "here speaks of other subjects."
    ]


def _unpaired(cells: Cells, columns: Sequence[Column], methods: Sequence[str]) -> list[str]:
    """Methods whose pictures are of other subjects or prompts than the baseline's, and in which columns."""
    baseline, *others = methods
    labels: dict[str, list[str]] = {}
    for method in others:
        for column in columns:
            own, base = (cells[column].get(name, {}) for name in (method, baseline))
            alone = {method: [pair for pair in own if pair not in base], baseline: [p for p in base if p not in own]}
            if not own or not base or not any(alone.values()):
                continue
            shared = len(own) - len(alone[method])
            end = "differences are over these alone" if shared else "so they are not compared"
            only = "; ".join(
                f"only {name} has {some[0].subject}, {some[0].prompt!r}" for name, some in alone.items() if some
            )
            text = (
                f"{method} and {baseline} have {shared} of {len({**own, **base})} pairs of subject and prompt in common"
            )
            labels.setdefault(f"{text}, {end}: {only}.", []).append(column.label)
    return [f"{', '.join(names)}: {text}" for text, names in labels.items()]


def _cautions(cells: Cells, means: Sequence[Mean], methods: Sequence[str]) -> list[str]:
    """What a table of gains might hide."""
    cautions = []
    table = {(mean.method, mean.column): mean for mean in means if mean.group == ALL}
    for column in cells:
        real, copied = (table.get((name, column.label)) for name in (REAL, COPY))
        for name in methods:
            mean = table.get((name, column.label))
            if mean is None:
                cautions.append(f"{name} has no scores of {column.label}.")
                continue
            if column.axis == "identity" and real and copied and mean.mean > real.mean:
                cautions.append(
                    f"{name} is above the level of real photographs in {column.label} ({mean.mean:.3f} against "
                    f"{real.mean:.3f}; copy-paste {copied.mean:.3f}): look whether it copies its references."
                )
            if mean.unscored:
                cautions.append(
                    f"{mean.unscored} of {mean.pictures} pictures of {name} have no score of {column.label}."
                )
    return cautions
