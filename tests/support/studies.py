"""A folder as ``cgrpo evaluate`` writes it, of pictures that are drawn here, and a study of it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from cgrpo.scores import ScoreRow, write_scores
from cgrpo.study.create import StudyRequest, create_study
from cgrpo.study.manifest import Item, Study

SIDE = 24
METHODS = ("hidden-base", "secret-method")


def picture(file: Path, number: int, size: tuple[int, int] = (SIDE, SIDE)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    colours_HWC = np.random.default_rng(number).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(colours_HWC).save(file)


def evaluated(
    out: Path,
    methods: Sequence[str] = METHODS,
    subjects: int = 4,
    prompts: int = 6,
    seeds: int = 1,
    prompt: str = "a toy on a <b>beach</b> & more",
) -> Path:
    """Scores and pictures: identity is higher for later methods."""
    numbers = itertools.count()
    rows = []
    for s, p, m, seed in itertools.product(range(subjects), range(prompts), range(len(methods)), range(seeds)):
        name = f"toy{s}/{p:02d}_{seed}.png"
        picture(out / "pictures" / methods[m] / name, next(numbers))
        for metric, score in (("dino", m + s / 10 + seed / 100), ("clip", p / 10)):
            protocol = "one" if metric == "dino" else "prompt"
            rows.append(ScoreRow(methods[m], f"toy{s}", p, f"{prompt} {p}", seed, metric, protocol, score, name, None))
    for s in range(subjects):
        picture(out / "data" / f"toy{s}" / "00.png", 10_000 + s, (30, 20))
    write_scores(out, rows)
    description = {
        "benchmark": "drawn",
        "data": "data",
        "references": {f"toy{s}": [f"toy{s}/00.png"] for s in range(subjects)},
        "methods": {name: f"pictures/{name}" for name in methods},
        "metrics": {"dino": {"role": "judge", "axis": "identity"}, "clip": {"role": "judge", "axis": "prompt"}},
    }
    (out / "benchmark.json").write_text(json.dumps(description), encoding="utf-8")
    return out


def small_study(scores: Path, out: Path, **changed: object) -> tuple[Study, list[str]]:
    """12 items, 4 raters, 2 an item, 2 checks; returns the study and the tokens, the administrator's first."""
    ask = StudyRequest(**{"items": 12, "raters": 4, "per_item": 2, "checks": 2} | changed)  # type: ignore[arg-type]
    study = create_study(scores, out, ask)
    return study, tokens(out)


def tokens(study: Path) -> list[str]:
    lines = (study / "links.txt").read_text(encoding="utf-8").splitlines()
    return [line.rstrip("/").rpartition("/")[2] for line in lines]


def gold_answers(study: Study, item: Item, first_on_left: bool = True, right: bool = True) -> dict[str, str]:
    """A form's answers to an item with golds, all right or all wrong; a tie, or 3, where there is no gold."""
    answers = {}
    for question in study.questions:
        wanted = [c for c in study.choices if item.is_right(question.id, c, first_on_left) is right]
        answers[question.id] = wanted[0] if wanted else study.choices[len(study.choices) // 2]
    return answers


def as_table(study: Study) -> str:
    return json.dumps(asdict(study))
