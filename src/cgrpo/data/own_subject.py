"""From photos of one subject to tasks: every prompt with every photo in turn, some prompts held out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgrpo.data.captions import NOT_READ
from cgrpo.errors import UserError
from cgrpo.files import json_text, reading, write_text, writing
from cgrpo.pictures import ENDINGS, opened
from cgrpo.text import read_text

CLASS = "{class}"  # where a template names the subject
_FORMATS = (".json", ".jsonl", ".csv", ".tsv", ".parquet", ".yaml", ".yml", ".toml", ".py", ".xlsx")


@dataclass(frozen=True)
class Template:
    """A prompt with ``{class}`` where the subject's word goes; ``kind`` as rows of scores have it, or ""."""

    text: str
    kind: str = ""

    def prompt(self, subject: str) -> str:
        return self.text.replace(CLASS, subject)


def photos_in(folder: Path) -> tuple[list[Path], list[str]]:
    """The pictures in ``folder`` itself, in order of their names, and notes on other files.

    Raises UserError where there is none, or one that can't be opened.
    """
    with reading(folder):
        files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    photos = [file for file in files if file.suffix.lower() in ENDINGS]
    foreign = [file for file in files if file.suffix.lower() in NOT_READ]
    notes = []
    if foreign:
        notes.append(f"{len(foreign)} files are left out ({foreign[0].name}, ...): save them as JPEG or PNG")
    if captions := sum(photo.with_suffix(".txt").is_file() for photo in photos):
        notes.append(f"{captions} captions (.txt) are not used: a caption tells what its own photo shows")
    if not photos:
        raise UserError(f"{folder}: holds no photos", "save them as JPEG, PNG or WebP")
    for photo in photos:
        with opened(photo, photo):
            pass
    return photos, notes


def read_templates(file: Path) -> list[Template]:
    """A prompt per line, with ``{class}`` for the subject or its word itself; empty lines and # lines are passed over.

    Raises UserError for a file of another format, and for other braces, with which programs mark other things.
    """
    if file.suffix.lower() in _FORMATS:
        raise UserError(f"{file}: {file.suffix} is no list of prompts", "give a text file with a prompt per line")
    with reading(file, "give a text file with a prompt per line"):
        lines = [line.strip() for line in read_text(file).splitlines()]
    texts = [line for line in dict.fromkeys(lines) if line and not line.startswith("#")]
    for text in texts:
        if set(text.replace(CLASS, "")) & set("{}"):
            raise UserError(f"{file}: {text[:80]!r} has braces", f"where the subject's word goes, write {CLASS}")
    return [Template(text) for text in texts]


def tasks(
    photos: Sequence[Path],
    subject: str,
    templates: Sequence[Template],
    home: Path,
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
    paths = [Path(os.path.relpath(photo.absolute(), home.absolute())).as_posix() for photo in photos]
    rows = []
    for turn in range(len(photos)):
        for number, template in enumerate(templates):
            meta = {"subject_id": subject, "subject_kind": subject_kind, "prompt_kind": template.kind}
            rows.append(
                {
                    "id": f"{name}-{len(rows):04d}",
                    "prompt": template.prompt(subject),
                    "references": [paths[(number + turn + k) % len(paths)] for k in range(references)],
                    "subject": subject,
                    "meta": {key: value for key, value in meta.items() if value},
                }
            )
    if count > len(rows):
        raise UserError(f"--count {count}: {len(templates)} prompts and {len(photos)} photos make {len(rows)}")
    return rows[: count or None]


def write_tasks(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    """The manifest, whole or not at all. Raises UserError where it can't be written."""
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json_text(rows, indent=1, ensure_ascii=False) + "\n")
