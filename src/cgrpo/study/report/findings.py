"""All numbers of a report, computed once; JSON, Markdown and page show the same ones."""

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cgrpo.errors import UserError
from cgrpo.files import without_nan
from cgrpo.statistics import LEVEL
from cgrpo.study.manifest import Study
from cgrpo.study.statistics.comparisons import Davidson, Shares, Vote, davidson, shares, side_bias, votes_of
from cgrpo.study.statistics.intervals import FEWEST
from cgrpo.study.statistics.raters import (
    RaterVerdict,
    RatingMean,
    judge_raters,
    kept,
    krippendorff_alpha,
    rated,
    rating_mean,
    reliability,
    scores_by_item,
)
from cgrpo.study.store import Rater, Response


@dataclass(frozen=True)
class Agreement:
    """Of the raters on one question: alphas, the correlation of two raters within an item, reliability of an item's
    mean, and its square root: the most that anything can correlate with that mean."""

    question: str
    nominal: float
    ordinal: float
    interval: float
    one_rater: float
    mean: float
    ceiling: float


@dataclass(frozen=True)
class Findings:
    """raters: with the rule's verdict; shares, scale: without those it excludes; all_shares: with them."""

    study: Study
    raters: list[RaterVerdict]
    origins: dict[int, str]
    answers: int
    kept_answers: int
    shares: list[Shares]
    all_shares: list[Shares]
    scale: list[Davidson]
    means: list[RatingMean]
    agreement: list[Agreement]
    side: dict[str, Any]
    side_by_rater: dict[int, dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; None for NaN. The study's items are in study.json."""
        study = self.study
        about = {
            "name": study.name,
            "mode": study.mode,
            "methods": study.methods,
            "questions": {question.id: question.text for question in study.questions},
            "rules": asdict(study.rules),
            "raters_per_item": study.raters_per_item,
            "items": len(study.of_kind("item")),
            "power": study.power,
            "seed": study.seed,
            "created": study.created,
        }
        table = {key: value for key, value in asdict(self).items() if key != "study"}
        settings = {"intervals": "sign flips of items, subjects or raters", "level": LEVEL, "fewest": FEWEST}
        return without_nan({"study": about, "statistics": settings} | table)


def find(study: Study, raters: Sequence[Rater], responses: Sequence[Response]) -> Findings:
    """Raises UserError where nothing has been answered yet."""
    if not responses:
        raise UserError("no answers yet; send the raters their links first")
    good = kept(study, responses)
    pairwise = study.mode == "pairwise"
    votes = votes_of(study, good) if pairwise else []
    by_rater = {rater: [v for v in votes if v.rater == rater] for rater in {vote.rater for vote in votes}}
    several = pairwise and len(study.methods) > 2
    scale = [davidson(votes, question.id, study.methods) for question in study.questions] if several else []
    return Findings(
        study,
        judge_raters(study, responses),
        {rater.number: rater.origin for rater in raters},
        len(responses),
        len(good),
        _shares(study, votes),
        _shares(study, votes_of(study, responses)) if pairwise and len(good) < len(responses) else [],
        [one for one in scale if one is not None],
        [] if pairwise else _means(study, good),
        [_agreement(study, good, question.id) for question in study.questions],
        side_bias(votes) if pairwise else {},
        {rater: side_bias(own) for rater, own in sorted(by_rater.items())},
    )


def _shares(study: Study, votes: Sequence[Vote]) -> list[Shares]:
    pairs = list(itertools.combinations(study.methods, 2))
    by_pair = (shares(votes, question.id, *pair) for question in study.questions for pair in pairs)
    return [one for one in by_pair if one is not None]


def _means(study: Study, responses: Sequence[Response]) -> list[RatingMean]:
    means = (
        rating_mean(rated(study, responses, question.id), question.id, method)
        for question in study.questions
        for method in study.methods
    )
    return [one for one in means if one is not None]


def _agreement(study: Study, responses: Sequence[Response], question: str) -> Agreement:
    units = list(scores_by_item(study, responses, question).values())
    mean, one = reliability(units)
    return Agreement(
        question,
        krippendorff_alpha(units, "nominal"),
        krippendorff_alpha(units, "ordinal"),
        krippendorff_alpha(units, "interval"),
        one,
        mean,
        mean**0.5,
    )
