"""What is scored: a method's pictures, and the rows that stand beside every method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cgrpo.data.folders import files_in
from cgrpo.errors import UserError
from cgrpo.evaluation.benchmark.layouts import FIRST_SEED, find_picture, picture_name
from cgrpo.evaluation.benchmark.suite import Row, Suite
from cgrpo.pictures import ENDINGS
from cgrpo.scores import COPY, REAL, Key, Protocol


@dataclass(frozen=True)
class Item:
    """A picture to score; ``files`` are several for a collage. The rest as in ``rows.ScoreRow``.

    ``known`` are the subjects' photographs, one tuple a subject, its reference first; ``case`` as in ``suite.Row``.
    """

    method: str
    subjects: tuple[str, ...]
    words: tuple[str, ...]
    prompt_index: int | None
    prompt: str | None
    subject_kind: str
    prompt_kind: str
    seed: int | None
    picture: str
    files: tuple[Path, ...]
    known: tuple[tuple[str, ...], ...]
    case: Any = field(default=None, compare=False, repr=False)

    @property
    def subject(self) -> str:
        return "+".join(self.subjects)

    def key(self, metric: str, protocol: Protocol) -> Key:
        return (self.method, self.subject, self.prompt_index, self.seed, metric, protocol, self.picture, None)

    def references(self, protocol: Protocol) -> list[tuple[str, tuple[str, ...]]]:
        """For each subject its word and the photographs it is compared with."""
        some = {"prompt": slice(0), "one": slice(1)}.get(protocol, slice(None))
        return [(word, names[some]) for word, names in zip(self.words, self.known, strict=True)]


def _of_row(suite: Suite, row: Row, method: str, seed: int | None, picture: str, files: tuple[Path, ...]) -> Item:
    known = tuple(suite.photographs[name] for name in row.subjects)
    if len(row.subjects) == 1:  # those that it was shown first: rows of one subject may be shown others
        known = (tuple(dict.fromkeys((*row.references, *known[0]))),)
    texts = (row.prompt_index, row.prompt, row.subject_kind, row.prompt_kind)
    return Item(method, row.subjects, row.words, *texts, seed, picture, files, known, row.case)


def method_items(
    method: str, folder: Path, suite: Suite, seeds: int, first_seed: int = FIRST_SEED, layout: str = "rows"
) -> list[Item]:
    """A method's pictures in ``folder``, one a row and seed, there or not. Raises UserError if there is none at all,
    or if two rows have one.
    """
    items, owners = [], {}
    for row in suite.rows:
        for seed in range(first_seed, first_seed + seeds):
            name = picture_name(row, seed, layout, first_seed)
            other = owners.setdefault(name, row)
            if other is not row:
                raise UserError(
                    f"--layout {layout}: rows {other.number} ({other.subject}: {other.prompt[:60]!r}) and {row.number} "
                    f"({row.subject}: {row.prompt[:60]!r}) have one picture, {name[:60]}; add {{row}} to it"
                )
            name = find_picture(folder, name)
            items.append(_of_row(suite, row, method, seed, name, (folder / name,)))
    if not any(item.files[0].is_file() for item in items):
        shown = items[0].picture
        raise UserError(f"{folder} holds none of the pictures, such as {shown}; see --layout, --seeds and --first-seed")
    return items


def of_no_row(folder: Path, items: Sequence[Item]) -> list[str]:
    """Pictures in ``folder`` that none of ``items`` is: numbered otherwise, perhaps, than the rows are."""
    known = {file for item in items for file in item.files}
    others = [file for file in files_in(folder) if file.suffix.lower() in ENDINGS and file not in known]
    return [str(file.relative_to(folder)) for file in others]


def real_items(suite: Suite) -> list[Item]:
    """The ceiling: the rows' targets where they have any, else each subject's real photographs but its reference.

    Photographs follow no prompt; a photograph isn't compared with itself. Of pairs, subjects stand alone.
    """
    targets = [
        _of_row(suite, row, REAL, None, row.target, (suite.root / row.target,)) for row in suite.rows if row.target
    ]
    if targets:
        return targets
    singles = {name: (row, place) for row in suite.rows for place, name in enumerate(row.subjects)}
    items = []
    for subject, (row, place) in singles.items():
        kind = row.subject_kind if len(row.subjects) == 1 else ""
        for name in suite.photographs[subject][1:]:
            others = (tuple(other for other in suite.photographs[subject] if other != name),)
            file = (suite.root / name,)
            items.append(Item(REAL, (subject,), (row.words[place],), None, None, kind, "", None, name, file, others))
    return items


def copy_items(suite: Suite) -> list[Item]:
    """The reference itself as the output for every prompt; of a pair, both references side by side."""
    items = []
    for row in suite.rows:
        shown = tuple(suite.photographs[name][0] for name in row.subjects)
        files = tuple(suite.root / name for name in shown)
        items.append(_of_row(suite, row, COPY, None, " + ".join(shown), files))
    return items
