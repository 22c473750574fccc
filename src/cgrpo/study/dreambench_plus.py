"""DreamBench++'s published ratings: by groups of people and by GPT-4o, and how far they agree.

Layout and arithmetic after yuangpeng/dreambench_plus: krippendorff_analysis.py, merge_data.py and pearson.py in its
folder dreambench_plus. Both of its archives are unpacked in one folder:

data_human_rating/raw_data/GROUP/NAME-METHOD.json           {"ID-PROMPT": [concept preservation, prompt following]}
data_human_rating/merged_data/GROUP/METHOD-cp.json          {"ID-PROMPT": score}; -pf.json is prompt following
data_gpt_rating/concept_preservation_full/METHOD/NAME.json  {collection_id, prompt_index, score}
data_gpt_rating/concept_preservation_full/METHOD.json       {"ID-PROMPT": score}; full2 and full3 asked again
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from cgrpo.errors import UserError
from cgrpo.files import reading
from cgrpo.scores import ScoreRow
from cgrpo.study.manifest import Arm, Item
from cgrpo.study.statistics.alignment import pearson
from cgrpo.study.statistics.raters import RatedPicture, krippendorff_alpha
from cgrpo.text import parse_json, read_text

PEOPLE, GPT = "data_human_rating", "data_gpt_rating"
QUESTIONS = {"identity": ("concept_preservation", "cp"), "prompt": ("prompt_following", "pf")}
ROUNDS = ("full", "full2", "full3")  # of GPT-4o, with the same question
SEED = 42  # of the rated pictures
# Pearson's between the two groups, and of GPT-4o with them, half the difference of the groups beside it. Concept
# preservation, as NearID's Table 2 reprints it; the prompt's were not at hand.
PUBLISHED = {
    "textual_inversion_sd": (0.684, 0.625, 0.032),
    "dreambooth_sd": (0.731, 0.722, 0.011),
    "dreambooth_lora_sdxl": (0.651, 0.637, 0.004),
    "blip_diffusion": (0.630, 0.466, 0.019),
    "emu2": (0.763, 0.777, 0.004),
    "ip_adapter_plus_vit_h_sdxl": (0.530, 0.424, 0.045),
    "ip_adapter_vit_g_sdxl": (0.485, 0.401, 0.021),
}
Ratings = dict[str, float]  # by "ID-PROMPT"


@dataclass(frozen=True)
class MethodRatings:
    """The ratings of one method's pictures on one question: of each group of people, and of each round of GPT-4o."""

    question: str
    method: str
    people: Mapping[str, Ratings]
    gpt: Mapping[str, Ratings]


@dataclass(frozen=True)
class Agreement:
    """How far ratings agree on one method's pictures.

    alpha_people, alpha_gpt      Krippendorff's, of intervals: between the groups, and of GPT-4o with a group
    pearson_people, pearson_gpt  Pearson's; ``_spread`` is the standard deviation over rounds, or half the difference
                                 of the groups
    """

    question: str
    method: str
    pictures: int
    alpha_people: float
    alpha_gpt: float
    alpha_gpt_spread: float
    pearson_people: float
    pearson_gpt: float
    pearson_gpt_spread: float


def is_ratings(folder: Path) -> bool:
    """Whether DreamBench++'s ratings lie in ``folder``."""
    return (folder / PEOPLE).is_dir()


def read_ratings(folder: Path) -> list[MethodRatings]:
    """All methods' ratings, by question. Raises UserError for a file that holds none."""
    people: dict[tuple[str, str], dict[str, Ratings]] = {}
    home = folder / PEOPLE / "raw_data"
    raw = home.is_dir()
    for group in _folders(home if raw else folder / PEOPLE / "merged_data"):
        for file in sorted(group.glob("*.json")):
            first, _, last = file.stem.rpartition("-")
            for place, (question, (_, short)) in enumerate(QUESTIONS.items()):
                if raw or last == short:
                    key = (question, last if raw else first)
                    ratings = people.setdefault(key, {}).setdefault(group.name, {})
                    ratings.update(_scores(file, place if raw else None))
    found = [
        MethodRatings(question, method, groups, {name: _of_gpt(folder, question, name, method) for name in ROUNDS})
        for (question, method), groups in people.items()
    ]
    if not found:
        raise UserError(f"{folder / PEOPLE}: holds no ratings", "unpack DreamBench++'s human rating data there")
    return found


def _folders(place: Path) -> list[Path]:
    return sorted(path for path in place.glob("[!.]*") if path.is_dir())


def _scores(file: Path, place: int | None) -> Ratings:
    """The scores in a file by key; ``place``: which of the scores of a key. Null ones are left out."""
    scores: Ratings = {}
    for key, value in _table(file).items():
        score = value
        if place is not None and isinstance(value, list) and len(value) > place:
            score = value[place]
        if isinstance(score, bool) or not isinstance(score, int | float | None):
            raise UserError(f"{file}: {key} has no score, but {ascii(value)[:40]}")
        if score is not None and score == score:
            scores[key] = float(score)
    return scores


def _table(file: Path) -> dict[str, Any]:
    with reading(file):
        table = parse_json(read_text(file))
    if not isinstance(table, dict):
        raise UserError(f"{file}: must be an object of scores by picture")
    return table


def _of_gpt(folder: Path, question: str, name: str, method: str) -> Ratings:
    place = folder / GPT / f"{QUESTIONS[question][0]}_{name}"
    if not (place / method).is_dir():
        merged = place / f"{method}.json"
        return _scores(merged, None) if merged.is_file() else {}
    ratings: Ratings = {}
    for file in sorted((place / method).glob("*.json")):
        table = _table(file)
        if lacking := {"collection_id", "prompt_index", "score"} - table.keys():
            raise UserError(f"{file}: has no {min(lacking)}")
        if table["score"] is not None:
            ratings[f"{table['collection_id']}-{table['prompt_index']}"] = float(table["score"])
    return ratings


def agreement(ratings: MethodRatings) -> Agreement:
    """Rounded where DreamBench++'s own scripts round, so that the figures are theirs to the third decimal."""
    groups, rounds = list(ratings.people.values()), [one for one in ratings.gpt.values() if one]
    by_round = [round(statistics.fmean(_alpha([group, one]) for group in groups), 3) for one in rounds]
    with_gpt = [_pearson(group, rounds[0]) for group in groups] if rounds else [np.nan]
    return Agreement(
        ratings.question,
        ratings.method,
        len(set().union(*groups)),
        _alpha(groups),
        round(statistics.fmean(by_round), 3) if by_round else np.nan,
        round(statistics.stdev(by_round), 3) if len(by_round) > 1 else np.nan,
        statistics.fmean([_pearson(*pair) for pair in combinations(groups, 2)] or [np.nan]),
        statistics.fmean(with_gpt),
        (max(with_gpt) - min(with_gpt)) / 2,
    )


def _alpha(sources: Sequence[Ratings]) -> float:
    keys = sorted(set().union(*sources))
    return round(krippendorff_alpha([[one[key] for one in sources if key in one] for key in keys], "interval"), 3)


def _pearson(one: Ratings, other: Ratings) -> float:
    keys = sorted(one.keys() & other.keys())
    return round(pearson(np.array([one[key] for key in keys]), np.array([other[key] for key in keys])), 4)


def as_study(ratings: Sequence[MethodRatings]) -> Iterator[tuple[str, list[RatedPicture], list[ScoreRow]]]:
    """By question the rated pictures, and GPT-4o's scores as those of a metric."""
    for question in QUESTIONS:
        rated, rows = [], []
        for one in (one for one in ratings if one.question == question):
            for key in sorted(set().union(*one.people.values())):
                subject, _, number = key.rpartition("-")
                index = int(number) if number.isdecimal() else None
                item = Item(key, "item", "", (), ("",), (Arm(one.method, SEED, ""),), subject, index)
                rated.append(RatedPicture(item, tuple(group[key] for group in one.people.values() if key in group)))
                protocol = "one" if question == "identity" else "prompt"
                score = one.gpt["full"].get(key)
                rows.append(ScoreRow(one.method, subject, index, "", SEED, "gpt-4o", protocol, score, "", None))
        yield question, rated, rows
