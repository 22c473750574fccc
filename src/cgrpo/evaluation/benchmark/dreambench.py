"""DreamBench: its two official lists, from subjects and prompt templates, and the photos that the user has."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from cgrpo import fingerprint
from cgrpo.errors import UserError
from cgrpo.evaluation.benchmark.suite import Suite, SuiteRow, subjects_of
from cgrpo.pictures import ENDINGS
from cgrpo.scores import PROPERTY

Which = Literal["single", "multi"]
HOME = "https://github.com/google/dreambooth (folder dataset)"
PLACED = 10  # templates that say where a subject is, before the ten that objects and live subjects have of their own
PROPERTIES = 20  # from here on: red, purple, shiny, wet, cube shaped


@functools.cache
def published() -> dict[str, Any]:
    """The package's dreambench.json: templates, subjects (class, live, reference, photographs' SHA-256), pairs."""
    return json.loads((resources.files("cgrpo.evaluation.benchmark") / "dreambench.json").read_text(encoding="utf-8"))


def dreambench_suite(data: Path | str, which: Which = "single", subjects: Sequence[str] = ()) -> Suite:
    """The list ``official_list`` gives, with the photos in ``data``, a folder of SUBJECT/NN.jpg.

    Raises UserError for a folder that lacks a subject's reference.
    """
    data, rows = Path(data), official_list(which, subjects)
    names = subjects_of(rows)
    checked = check_photos(data, names)
    photos = {name: tuple(dict.fromkeys((_reference(name), *_photos(data, name)))) for name in names}
    conditions = {"benchmark": f"dreambench {which}", "photographs": checked["kind"]}
    return Suite(f"DreamBench, {which}", data, rows, photos, conditions, {"photographs": checked})


def official_list(which: Which = "single", subjects: Sequence[str] = ()) -> list[SuiteRow]:
    """The 750 rows of the single-subject or of the two-subject list, in order.

    ``subjects`` leaves the rows that show none but these. Raises UserError for a name that DreamBench has not, or
    where no row is left.
    """
    subjects = (subjects,) if isinstance(subjects, str) else subjects
    everyone = published()["subjects"]
    strange = [name for name in subjects if name not in everyone]
    if strange:
        raise UserError(f"DreamBench has no subject {strange[0]!r}; it has {', '.join(everyone)}")
    groups = [(name,) for name in everyone] if which == "single" else [tuple(pair) for pair in published()["pairs"]]
    texts = [(group, index, text) for group in groups for index, text in enumerate(_prompts(group))]
    rows = [
        SuiteRow(
            number,
            group,
            words=tuple(everyone[name]["class"] for name in group),
            references=tuple(map(_reference, group)),
            prompt_index=index,
            prompt=text,
            subject_kind=_subject_kind(group),
            prompt_kind=_prompt_kind(index, _subject_kind(group) == "object"),
        )
        for number, (group, index, text) in enumerate(texts)
        if not subjects or set(group) <= set(subjects)
    ]
    if not rows:
        raise UserError(f"no pair of DreamBench's is made of {', '.join(subjects)} alone; name both subjects of one")
    return rows


def templates(kind: str) -> list[tuple[str, str]]:
    """The 25 templates for "live" subjects or for an "object", ``{class}`` in each, with each one's prompt kind."""
    return [(text, _prompt_kind(n, kind == "object")) for n, text in enumerate(published()["templates"][kind])]


def is_live(word: str) -> bool:
    """Whether DreamBench has a live subject of this class."""
    return any(entry["live"] and entry["class"] == word.lower() for entry in published()["subjects"].values())


def _reference(subject: str) -> str:
    return f"{subject}/{published()['subjects'][subject]['reference']}"


def _subject_kind(group: Sequence[str]) -> str:
    """ "live" or "object"; "mixed" for a pair of both."""
    live = {published()["subjects"][name]["live"] for name in group}
    return "mixed" if len(live) > 1 else "live" if True in live else "object"


def _prompt_kind(index: int, is_object: bool) -> str:
    """Ten backgrounds that all subjects share, ten contexts (of live subjects: accessories), five properties."""
    if index >= PROPERTIES:
        return PROPERTY
    return "background" if index < PLACED else "context" if is_object else "accessory"


def _prompts(group: Sequence[str]) -> list[str]:
    """The 25 prompts of a subject or a pair. A pair with a live subject gets the live templates."""
    live = _subject_kind(group) != "object"
    texts = published()["templates"]["live" if live else "object"]
    first, *rest = [published()["subjects"][name]["class"] for name in group]
    if not rest:
        return [text.replace("{class}", first) for text in texts]
    return [_pair_prompt(text, first, rest[0], live and n >= PLACED) for n, text in enumerate(texts)]


def _pair_prompt(text: str, first: str, second: str, beside: bool) -> str:
    """ "a A and a B in the jungle", "a red A and a red B", or for live subjects "a red A, next to it is a B"."""
    if beside:
        return f"{text.replace('{class}', first)}, next to it is a {second}"
    if text.startswith("a {class} "):
        return text.replace("a {class}", f"a {first} and a {second}")
    return " and ".join(text.replace("{class}", word) for word in (first, second))


# -- photos ----------------------------------------------------------------------------------------


def _photos(data: Path, subject: str) -> list[str]:
    """A subject's photos in order: "cat/00.jpg", ..., whatever pictures lie in its folder."""
    files = sorted((data / subject).glob("*"))
    return [f"{subject}/{f.name}" for f in files if f.suffix.lower() in ENDINGS and not f.name.startswith(".")]


def check_photos(data: Path, subjects: Sequence[str]) -> dict[str, Any]:
    """Whether the subjects' photos are those published, the re-encoded copy, or something else.

    Returns ``{kind, originals, copies, unknown, missing}``: ``kind`` is "originals", "re-encoded copy", "unknown" or
    "mixed"; ``unknown`` and ``missing`` list files. Raises UserError for a folder without a subject's reference, and
    refuses nothing else.
    """
    for subject in subjects:
        if not (data / _reference(subject)).is_file():
            raise UserError(f"{data / _reference(subject)}: no such photo; --data must be DreamBench's folder, {HOME}")
    counts: Counter[str] = Counter()
    unknown, missing = [], []
    for subject in subjects:
        listed = published()["subjects"][subject]["photographs"]
        missing += [f"{subject}/{name}" for name in listed if not (data / subject / name).is_file()]
        for photo in _photos(data, subject):
            original, copy = listed.get(Path(photo).name, ("", ""))
            actual = fingerprint.of_file(data / photo)
            kind = {original: "originals", copy: "re-encoded copy"}.get(actual, "unknown")
            counts[kind] += 1
            unknown += [photo] if kind == "unknown" else []
    return {
        "kind": next(iter(counts)) if len(counts) == 1 else "mixed",
        "originals": counts["originals"],
        "copies": counts["re-encoded copy"],
        "unknown": unknown,
        "missing": missing,
    }
