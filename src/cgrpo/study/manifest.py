"""``study.json``: what a study is, fixed before the first answer. Methods and golds stand here, and in no page."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import TypeAdapter

from cgrpo.errors import UserError
from cgrpo.files import json_text, reading, write_text
from cgrpo.fingerprint import of_file
from cgrpo.text import parse_json, read_text

MANIFEST, PICTURES = "study.json", "pictures"
FORMAT = 1
Mode = Literal["pairwise", "rating"]
ItemKind = Literal["item", "check", "tutorial"]
LEFT, TIE, RIGHT = "left", "tie", "right"
FIRST, SECOND = "first", "second"  # an item's pictures, whatever side they are shown on
CHOICES: dict[Mode, tuple[str, ...]] = {"pairwise": (LEFT, TIE, RIGHT), "rating": tuple("012345")}


class Question(NamedTuple):
    """``id`` "identity" or "prompt"; ``text`` as it is asked."""

    id: str
    text: str


@dataclass(frozen=True)
class Arm:
    """Where a shown picture comes from: ``method`` "" for photos; ``source`` its file when the study was made."""

    method: str
    seed: int | None
    source: str


@dataclass(frozen=True)
class Item:
    """What is shown on one page.

    id          opaque, as those of its pictures are
    pictures    one (rating) or two (pairwise) ids, as ``arms``: in a pair the method that is compared with comes first
    gold        by question: of a pair "first", "tie" or "second", of a rating (least, most); {} for real items
    explanation why the gold is the gold; of tutorial items
    """

    id: str
    kind: ItemKind
    prompt: str
    references: tuple[str, ...]
    pictures: tuple[str, ...]
    arms: tuple[Arm, ...]
    subject: str
    prompt_index: int | None = None
    gold: Mapping[str, Any] = field(default_factory=dict)
    explanation: str = ""

    def is_right(self, question: str, choice: str, first_on_left: bool) -> bool | None:
        """Whether an answer is the gold one; None where there is none."""
        if question not in self.gold:
            return None
        gold = self.gold[question]
        if len(self.pictures) == 1:
            return gold[0] <= int(choice) <= gold[1]
        return preferred(choice, first_on_left) == gold


def preferred(choice: str, first_on_left: bool) -> str:
    """Which of an item's pictures was chosen: "first", "tie" or "second"."""
    if choice == TIE:
        return TIE
    return FIRST if (choice == LEFT) == first_on_left else SECOND


class Shown(NamedTuple):
    """An item on a rater's list."""

    item: str
    first_on_left: bool


@dataclass(frozen=True)
class Rules:
    """Fixed beforehand: the share of tutorial answers that must be right, how many failed checks exclude a rater not
    yet, and with what probability one who answers at random passes the checks."""

    pass_mark: float
    checks: int
    failed_at_most: int
    chance_to_pass: float


@dataclass(frozen=True)
class Study:
    """A whole study; ``lists`` has the items of each rater, from number 1 on, in order."""

    name: str
    mode: Mode
    seed: int
    created: str
    methods: tuple[str, ...]
    questions: tuple[Question, ...]
    consent: str
    completion_code: str
    rules: Rules
    raters_per_item: int
    items: tuple[Item, ...]
    lists: tuple[tuple[Shown, ...], ...]
    hashes: Mapping[str, str]  # of the pictures, by id
    source: Mapping[str, Any]
    power: Mapping[str, Any]

    @property
    def choices(self) -> tuple[str, ...]:
        return CHOICES[self.mode]

    def by_id(self) -> dict[str, Item]:
        return {item.id: item for item in self.items}

    def of_kind(self, kind: ItemKind) -> list[Item]:
        return [item for item in self.items if item.kind == kind]


def write_study(folder: Path, study: Study) -> None:
    """Raises OSError."""
    write_text(folder / MANIFEST, json_text({"format": FORMAT} | asdict(study), indent=1, ensure_ascii=False) + "\n")


def read_study(folder: Path) -> Study:
    """Raises UserError where there is none, or another program's."""
    file = folder / MANIFEST
    if not file.exists():
        raise UserError(f"{file}: no such file", f"make a study with cgrpo study create --out {folder}")
    with reading(file, "restore it from a backup"):
        table = parse_json(read_text(file))
        if not isinstance(table, dict) or table.pop("format", None) != FORMAT:
            raise ValueError("of another version of cgrpo")
        return TypeAdapter(Study).validate_python(table)


def manifest_fingerprint(folder: Path) -> str:
    """Fingerprint of study.json as it stands. Raises UserError."""
    with reading(folder / MANIFEST):
        return of_file(folder / MANIFEST)


def changed_pictures(folder: Path, study: Study) -> Iterable[str]:
    """Ids of pictures that are gone or no longer what they were when the study was made."""
    for picture, fingerprint in study.hashes.items():
        file = folder / PICTURES / f"{picture}.png"
        if not file.is_file() or of_file(file) != fingerprint:
            yield picture
