"""A benchmark as the rest of this room sees it: subjects with photographs, and rows that ask for pictures of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

Masks = Mapping[tuple[str, str], tuple[Path, int]]


@dataclass(frozen=True)
class Row:
    """One prompt for one subject, or for several together.

    number        its place in the whole list, also where only some subjects are taken
    subjects      names, safe as folders; ``words`` what each is ("cat"), for the segmenter and the prompt
    references    the pictures shown to the policy, relative to the suite's folder
    prompt_index  counts the subjects' prompts from 0
    subject_kind  of the subjects ("live", "object"), ``prompt_kind`` of the prompt ("background", "property"); "": none
    target        a real picture of the subject that follows the prompt, where there is one
    case          the toy world's ground truth, for its judges
    """

    number: int
    subjects: tuple[str, ...]
    words: tuple[str, ...]
    references: tuple[str, ...]
    prompt_index: int
    prompt: str
    subject_kind: str = ""
    prompt_kind: str = ""
    target: str | None = None
    case: Any = field(default=None, compare=False, repr=False)

    @property
    def subject(self) -> str:
        """One name: "cat", or "cat+dog" for a pair."""
        return "+".join(self.subjects)


@dataclass(frozen=True)
class Suite:
    """Rows, and the photographs that identity is scored against.

    root         the folder that all pictures' names are relative to
    photographs  by subject, its reference first: protocol "one" compares with that alone, "all" with every one
    conditions   what must be equal for pictures and scores to be comparable; scores under other conditions do not mix
    masks        the data set's own, by subject and photograph: the file, and above which level is subject
    facts        worth keeping beside the scores: for DreamBench, which photographs these are
    """

    name: str
    root: Path
    rows: list[Row]
    photographs: Mapping[str, tuple[str, ...]]
    conditions: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)
    masks: Masks = field(default_factory=dict)

    @property
    def references(self) -> dict[str, list[str]]:
        """The pictures shown to the policy, by subject or pair."""
        return {row.subject: list(row.references) for row in self.rows}

    def with_targets(self) -> Suite:
        """Its rows that have a target."""
        return replace(self, rows=[row for row in self.rows if row.target is not None])


def subjects_of(rows: Iterable[Row]) -> list[str]:
    """The rows' single subjects, each once."""
    return list(dict.fromkeys(name for row in rows for name in row.subjects))
