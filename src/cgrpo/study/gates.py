"""Items whose answer is known: the tutorial that all raters pass first, and checks hidden among the items."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from cgrpo.errors import UserError
from cgrpo.files import reading
from cgrpo.study import pictures
from cgrpo.study.design import Sources, Task
from cgrpo.study.manifest import FIRST, SECOND, TIE, Arm, Item, ItemKind, Mode, Rules
from cgrpo.study.pictures import Shelf, Size
from cgrpo.text import parse_json, read_text

SHARE, LEAST = 0.05, 5  # of checks among a rater's items
FAILED = 0.25  # of the checks: more than this share excludes a rater
HIGH, LOW = (4, 5), (0, 1)  # golds of ratings
GOLDS = {"pairwise": (FIRST, TIE, SECOND), "rating": tuple("012345")}
_ONE = "One picture is the reference itself, the other shows another subject altogether. "
WORDS: dict[Mode, tuple[str, str]] = {
    "pairwise": (
        f"{_ONE}The first question is about the subject alone, whatever the prompt asks for.",
        f"{_ONE}Sides mean nothing: look at both.",
    ),
    "rating": (
        "This is the reference itself: its subject could not be kept better.",
        "This is another subject altogether: nothing of the reference is kept.",
    ),
}
SPOILT = {
    "pairwise": "Both are the same picture, one of them under noise: the second question is about quality, too.",
    "rating": "The picture is spoilt by noise: the second question is about quality, too.",
}
SAME = "Both show exactly the same picture, so both answers are a tie. Ties are answers like any other: use them."


def rules(mode: Mode, checks: int, pass_mark: float) -> Rules:
    """What is fixed beforehand. A rating's check has 2 right answers of 6, a comparison's 1 of 3."""
    failed = math.floor(FAILED * checks)
    chance = float(stats.binom.cdf(failed, checks, 2 / 3)) if checks else 1.0
    return Rules(pass_mark, checks, failed, round(chance, 4))


def default_checks(items_a_rater: float) -> int:
    return max(LEAST, math.ceil(SHARE * items_a_rater))


class Gates:
    """Makes tutorial and check items out of a study's references and pictures."""

    def __init__(self, sources: Sources, shelf: Shelf, size: Size, mode: Mode, rng: np.random.Generator):
        self.sources, self.shelf, self.size, self.rng = sources, shelf, size, rng
        self.mode: Mode = mode

    def checks(self, count: int) -> list[Item]:
        """The reference itself against another subject's (pairwise), or in turn the one and the other (rating)."""
        return [self._wrong_subject("check", task, n % 2 == 0, "") for n, task in enumerate(self._tasks(count))]

    def tutorial(self) -> list[Item]:
        """Four items: the wrong subject, the same picture twice, a spoilt picture, and the wrong subject again."""
        tasks = self._tasks(4)
        right, wrong = WORDS[self.mode]
        return [
            self._wrong_subject("tutorial", tasks[0], True, right),
            self._wrong_subject("tutorial", tasks[1], False, wrong) if self.mode == "rating" else self._same(tasks[1]),
            self._spoilt(tasks[2]),
            self._wrong_subject("tutorial", tasks[3], False, wrong),
        ]

    def own_tutorial(self, file: Path) -> list[Item]:
        """Items that the user chose: a JSON list of {references, pictures, prompt, gold, explanation}."""
        items = []
        for number, entry in enumerate(_read_tutorial(file), 1):
            try:
                items.append(self._own(entry, file.parent))
            except (KeyError, TypeError, ValueError, OSError) as error:
                raise UserError(
                    f"{file}, item {number}: {error}; an item is references and pictures (lists of files), prompt, "
                    "gold (by question) and explanation"
                ) from None
        return items

    def _own(self, entry: Mapping[str, Any], home: Path) -> Item:
        shown = [pictures.load(home / name) for name in entry["pictures"]]
        wanted = 2 if self.mode == "pairwise" else 1
        if len(shown) != wanted:
            raise ValueError(f"{len(shown)} pictures where {wanted} are shown")
        gold = {key: self._gold(str(value)) for key, value in entry["gold"].items() if key in ("identity", "prompt")}
        if not gold:
            raise ValueError("no gold answer of identity or prompt")
        return self.shelf.item(
            "tutorial",
            str(entry["prompt"]),
            [home / name for name in entry["references"]],
            [pictures.whole(picture, self.size) for picture in shown],
            [Arm("", None, str(name)) for name in entry["pictures"]],
            "",
            gold=gold,
            explanation=str(entry["explanation"]),
        )

    def _gold(self, value: str) -> Any:
        if value not in GOLDS[self.mode]:
            raise ValueError(f"gold {value!r} is none of {', '.join(GOLDS[self.mode])}")
        return value if self.mode == "pairwise" else [max(0, int(value) - 1), min(5, int(value) + 1)]

    def _tasks(self, count: int) -> list[Task]:
        order = self.rng.permutation(len(self.sources.tasks))
        return [self.sources.tasks[order[n % len(order)]] for n in range(count)]

    def _wrong_subject(self, kind: ItemKind, task: Task, reference_first: bool, explanation: str) -> Item:
        own = self.sources.references[task.subject][0]
        others = self._others(task)
        other = others[int(self.rng.integers(len(others)))]
        files = [own, other] if reference_first else [other, own]
        gold: dict[str, Any] = {"identity": FIRST if reference_first else SECOND}
        if self.mode == "rating":
            files, gold = files[:1], {"identity": HIGH if reference_first else LOW}
        shown = [pictures.filled(pictures.load(file), self.size) for file in files]
        arms = [Arm("", None, str(file)) for file in files]
        references = self.sources.references[task.subject][:1]  # a pair's first is what was copied
        return self.shelf.item(
            kind, task.prompt, references, shown, arms, task.subject, gold=gold, explanation=explanation
        )

    def _others(self, task: Task) -> list[Path]:
        own = set(task.subject.split("+"))
        others = [files[0] for name, files in sorted(self.sources.references.items()) if not own & set(name.split("+"))]
        if not others:
            raise UserError(
                "tutorial and checks need a second subject; evaluate more than one, or give --checks 0 and "
                "--tutorial FILE"
            )
        return others

    def _same(self, task: Task) -> Item:
        picture = self._generated(task)
        return self._lesson(task, [picture] * 2, {"identity": TIE, "prompt": TIE}, SAME)

    def _spoilt(self, task: Task) -> Item:
        picture = self._generated(task)
        spoilt = pictures.damaged(picture, int(self.rng.integers(2**31)))
        if self.mode == "rating":
            return self._lesson(task, [spoilt], {"prompt": (0, 2)}, SPOILT["rating"])
        return self._lesson(task, [spoilt, picture], {"prompt": SECOND}, SPOILT["pairwise"])

    def _lesson(self, task: Task, shown: Sequence[Any], gold: Mapping[str, Any], explanation: str) -> Item:
        arms = [Arm("", None, str(self._file(task)))] * len(shown)
        references = self.sources.references[task.subject]
        return self.shelf.item(
            "tutorial", task.prompt, references, shown, arms, task.subject, gold=gold, explanation=explanation
        )

    def _file(self, task: Task) -> Path:
        seeds = task.pictures[self.sources.methods[0]]
        return seeds[min(seeds)]

    def _generated(self, task: Task) -> Any:
        return pictures.whole(pictures.load(self._file(task)), self.size)


def _read_tutorial(file: Path) -> list[Any]:
    with reading(file, "give a JSON list of items"):
        table = parse_json(read_text(file))
        if not isinstance(table, list) or not table:
            raise ValueError("no list of items")
        return table
