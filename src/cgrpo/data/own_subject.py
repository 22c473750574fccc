"""From photos of one subject to tasks: every prompt with every photo in turn, some prompts held out."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cgrpo.data.captions import NOT_READ
from cgrpo.data.neighbours import neighbours
from cgrpo.data.suspicion import placeholder
from cgrpo.errors import UserError
from cgrpo.files import is_contact_sheet, json_text, reading, write_text, writing
from cgrpo.pictures import ENDINGS, opened
from cgrpo.text import read_text

CLASS = "{class}"  # where a template names the subject
HELD_OUT = ".heldout.json"  # how the file with the held-out tasks ends
_FORMATS = (".json", ".jsonl", ".csv", ".tsv", ".parquet", ".yaml", ".yml", ".toml", ".py", ".xlsx")


@dataclass(frozen=True)
class Template:
    """A prompt with ``{class}`` where the subject's word goes; ``kind`` as rows of scores have it, or ""."""

    text: str
    kind: str = ""

    def prompt(self, subject: str) -> str:
        return self.text.replace(CLASS, subject)

    def names(self, subject: str) -> bool:
        return CLASS in self.text or subject.lower() in self.text.lower()


def photos_in(folder: Path) -> tuple[list[Path], dict[Path, Path], list[str]]:
    """The pictures in ``folder`` itself, in order of their names, their masks, and notes on other files.

    Masks lie next to their photos or in masks/, as OneTrainer and ai-toolkit have them.

    Raises UserError where there is none, or one that can't be opened.
    """
    with reading(folder):
        files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    files = [file for file in files if not is_contact_sheet(file)]
    near = neighbours(folder, [*files, *sorted(folder.glob("mask*/*"))])
    photos = [file for file in files if file.suffix.lower() in ENDINGS and file not in near.all]
    foreign = [file for file in files if file.suffix.lower() in NOT_READ]
    notes = list(near.remarks())
    if foreign:
        notes.append(f"{len(foreign)} files are left out ({foreign[0].name}, ...): save them as JPEG or PNG")
    if captions := sum(photo.with_suffix(".txt").is_file() for photo in photos):
        notes.append(f"{captions} captions (.txt) are not used: a caption tells what its own photo shows")
    if not photos:
        raise UserError(f"{folder}: holds no photos", "save them as JPEG, PNG or WebP")
    for photo in photos:
        with opened(photo, photo):
            pass
    return photos, near.masks, notes


def read_templates(file: Path) -> list[Template]:
    """A prompt per line, with ``{class}`` for the subject or its word itself; empty lines and # lines are passed over.

    Raises UserError for a file of another format, and for other programs' placeholders and flags.
    """
    if file.suffix.lower() in _FORMATS:
        raise UserError(f"{file}: {file.suffix} is no list of prompts", "give a text file with a prompt per line")
    with reading(file, "give a text file with a prompt per line"):
        lines = [line.strip() for line in read_text(file).splitlines()]
    texts = [line for line in dict.fromkeys(lines) if line and not line.startswith("#")]
    for text in texts:
        rest = text.replace(CLASS, "dog")
        if foreign := placeholder(rest) or next((char for char in "{}" if char in rest), None):
            cure = f"where the subject's word goes, write {CLASS}, and leave out flags and weights"
            raise UserError(f"{file}: {text[:80]!r} has {foreign}, which the model would read as words", cure)
    return [Template(text) for text in texts]


def tasks(
    photos: Sequence[Path],
    subject: str,
    templates: Sequence[Template],
    home: Path,
    masks: Mapping[Path, Path] = MappingProxyType({}),
    *,
    name: str,
    subject_kind: str = "",
    references: int = 1,
    count: int = 0,
) -> list[dict[str, Any]]:
    """Rows of a manifest in the folder ``home``: the first ``count`` (0: all) of every prompt with every photo.

    Round after round each prompt comes once, with the next ``references`` photos in turn, so that any first rows
    share prompts and photos as evenly as can be. ``name`` begins the rows' ids.
    """
    if not 1 <= references <= len(photos):
        raise UserError(f"{references} references per task need more than {len(photos)} photos")

    def name_of(file: Path) -> str:
        return Path(os.path.relpath(file.absolute(), home.absolute())).as_posix()

    rows = []
    for turn in range(len(photos)):
        for number, template in enumerate(templates):
            meta = {"subject_id": subject, "subject_kind": subject_kind, "prompt_kind": template.kind}
            chosen = [photos[(number + turn + k) % len(photos)] for k in range(references)]
            row = {
                "id": f"{name}-{len(rows):04d}",
                "prompt": template.prompt(subject),
                "references": [name_of(photo) for photo in chosen],
                "subject": subject,
                "meta": {key: value for key, value in meta.items() if value},
            }
            if not masks.keys().isdisjoint(chosen):
                row["masks"] = [name_of(masks[photo]) if photo in masks else None for photo in chosen]
            rows.append(row)
    if count > len(rows):
        raise UserError(f"--count {count}: {len(templates)} prompts and {len(photos)} photos make {len(rows)}")
    return rows[: count or None]


def write_tasks(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    """The manifest, whole or not at all. Raises UserError where it can't be written."""
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json_text(rows, indent=1, ensure_ascii=False) + "\n")
