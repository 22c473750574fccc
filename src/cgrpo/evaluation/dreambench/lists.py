"""DreamBench's two official lists, from its subjects and prompt templates, and how a picture of a row is called."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from cgrpo.errors import UserError

Which = Literal["single", "multi"]
Layout = Literal["rows", "uno"]
FIRST_SEED = 3407  # UNO's and Customized-GRPO's
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
PLACED = 10  # templates that say where a subject is, before the ten that live subjects have of their own


@dataclass(frozen=True)
class Row:
    """A row of a list. ``number`` is its place in the whole list, also where only some subjects are taken.

    ``references`` are one photograph a subject ("cat/04.jpg", relative to DreamBench's folder); ``classes`` are the
    subjects' class words.
    """

    number: int
    subjects: tuple[str, ...]
    classes: tuple[str, ...]
    references: tuple[str, ...]
    prompt_index: int
    prompt: str

    @property
    def subject(self) -> str:
        """One name: "cat", or "cat+dog" for a pair."""
        return "+".join(self.subjects)


@functools.cache
def known() -> dict[str, Any]:
    """The package's dreambench.json: templates, subjects (class, live, reference, photographs' SHA-256), pairs."""
    return json.loads((resources.files("cgrpo.evaluation.dreambench") / "dreambench.json").read_text(encoding="utf-8"))


def official_list(which: Which = "single", subjects: Sequence[str] = ()) -> list[Row]:
    """The 750 rows of the single-subject or of the two-subject list, in order.

    ``subjects`` leaves the rows that show none but these. Raises UserError for a name that DreamBench has not, or
    where no row is left.
    """
    strange = [name for name in subjects if name not in known()["subjects"]]
    if strange:
        raise UserError(f"DreamBench has no subject {strange[0]!r}; it has {', '.join(known()['subjects'])}")
    groups = [(name,) for name in known()["subjects"]] if which == "single" else [tuple(p) for p in known()["pairs"]]
    texts = [(group, index, text) for group in groups for index, text in enumerate(_prompts(group))]
    rows = [
        Row(
            number,
            group,
            tuple(known()["subjects"][name]["class"] for name in group),
            tuple(f"{name}/{known()['subjects'][name]['reference']}" for name in group),
            index,
            text,
        )
        for number, (group, index, text) in enumerate(texts)
        if not subjects or set(group) <= set(subjects)
    ]
    if not rows:
        raise UserError(f"no pair of DreamBench's is made of {', '.join(subjects)} alone; name both subjects of one")
    return rows


def _prompts(group: Sequence[str]) -> list[str]:
    """The 25 prompts of a subject or a pair. A pair with a live subject gets the live templates."""
    subjects = [known()["subjects"][name] for name in group]
    live = any(subject["live"] for subject in subjects)
    templates = known()["templates"]["live" if live else "object"]
    first, *rest = [subject["class"] for subject in subjects]
    if not rest:
        return [text.replace("{class}", first) for text in templates]
    return [_pair_prompt(text, first, rest[0], live and n >= PLACED) for n, text in enumerate(templates)]


def _pair_prompt(text: str, first: str, second: str, beside: bool) -> str:
    """ "a A and a B in the jungle", "a red A and a red B", or for live subjects "a red A, next to it is a B"."""
    if beside:
        return f"{text.replace('{class}', first)}, next to it is a {second}"
    if text.startswith("a {class} "):
        return text.replace("a {class}", f"a {first} and a {second}")
    return " and ".join(text.replace("{class}", word) for word in (first, second))


def picture_name(row: Row, seed: int, layout: Layout = "rows", first_seed: int = FIRST_SEED) -> str:
    """Where the picture of a row and a seed lies in a method's folder, without its suffix.

    "rows": SUBJECT/PP_SEED, the prompt's index in two digits: "cat/07_3407", for a pair "cat+dog/07_3407".
    "uno": ROW_IMAGE, flat, as UNO's inference script writes them: the row's number in the list, and the image's
    counted from 0 (its seed is ``first_seed`` + IMAGE).
    """
    if layout == "uno":
        return f"{row.number}_{seed - first_seed}"
    return f"{row.subject}/{row.prompt_index:02d}_{seed}"


def find_picture(folder: Path, name: str) -> str:
    """The name with the suffix that is there (.png, .jpg, .jpeg or .webp), else with .png."""
    return next((name + suffix for suffix in SUFFIXES if (folder / (name + suffix)).is_file()), f"{name}.png")
