"""Manifest files, row by row.

A row is an object:
    prompt       (or text, caption) what to show
    references   (or UNO's image_paths; file_names; reference, file_name for a single one) the subject's pictures
    target       (or UNO's image_tgt_path; target_file_name) optional
    masks, mask_threshold, subject, id, meta: optional, see types.Record
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgrpo.data.archives import Files
from cgrpo.errors import UserError
from cgrpo.types import Record

PROMPT_KEYS = ("prompt", "text", "caption")
REFERENCE_KEYS = ("references", "reference", "image_paths", "file_names", "file_name")
SINGLE = ("reference", "file_name")  # name one picture rather than a list
TARGET_KEYS = ("target", "image_tgt_path", "target_file_name")


@dataclass(frozen=True)
class Fault:
    """A row that is no record: what it is called, and the one line that says why."""

    id: str
    message: str


Rows = list[Record | Fault]


def load_rows(path: Path) -> tuple[list[Any], str]:
    """The rows of a .json or .jsonl file, and the folder it names for its pictures ("": its own).

    A line that isn't JSON is a Fault among the rows. Raises UserError if the file can't be read or has no list.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".jsonl":
            lines = [(number, line) for number, line in enumerate(text.split("\n")) if line.strip()]
            return [_line(line, f"manifest {path}, line {number + 1}") for number, line in lines], ""
        rows = json.loads(text)
    except FileNotFoundError:
        raise UserError(
            f'manifest {path}: no such file; data.source is a .json or .jsonl file, a data set\'s folder, or "toybox"'
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"manifest {path}: can't be read as JSON ({error})") from error
    given = ""
    if isinstance(rows, dict) and "records" in rows:
        rows, given = rows["records"], str(rows.get("root") or "")
    if not isinstance(rows, list) or not rows:
        raise UserError(f"manifest {path}: holds no records; give a list of {{prompt, references}}")
    return rows, given


def _line(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        return Fault(where.rpartition(" ")[2], f"{where}: not JSON ({error}); one row a line")


def scan_rows(rows: list[Any], parse: Callable[[Any, str], Record]) -> Iterator[Record | Fault]:
    """``parse`` of each row and its name ("record 3"); what it raises becomes a Fault."""
    for number, row in enumerate(rows):
        if isinstance(row, Fault):
            yield row
            continue
        try:
            yield parse(row, f"record {number}")
        except UserError as error:
            yield Fault(str(row.get("id", number) if isinstance(row, dict) else number), str(error))


def record_of(row: Any, name: str, manifest: str, files: Files) -> Record:
    """The record of a row; ``name`` ends in the number that is its id if it has none. Raises UserError."""
    where = f"manifest {manifest}, {name}"
    if not isinstance(row, dict):
        raise UserError(f"{where}: must be an object with prompt and references")
    prompt = _first(row, PROMPT_KEYS)
    if not isinstance(prompt, str) or not prompt.strip():
        raise UserError(f"{where}: prompt is missing or empty")
    references = _first(row, REFERENCE_KEYS)
    if isinstance(references, str) and any(row.get(key) == references for key in SINGLE):
        references = [references]
    if not isinstance(references, list) or not references or not all(_names(item) for item in references):
        raise UserError(f"{where}: references (or image_paths) must be a list of picture files")
    target = _first(row, TARGET_KEYS)
    if target is not None and not _names(target):
        raise UserError(f"{where}: target must be a picture file")
    masks = row.get("masks") or []
    if (
        not isinstance(masks, list)
        or len(masks) not in (0, len(references))
        or not all(item is None or _names(item) for item in masks)
    ):
        raise UserError(f"{where}: masks must be a list with one file, or null, for each reference")
    threshold = row.get("mask_threshold", 127)
    if not isinstance(threshold, int) or isinstance(threshold, bool) or not 0 <= threshold < 255:
        raise UserError(f"{where}: mask_threshold must be a whole number from 0 to 254; brighter pixels are subject")
    meta = row.get("meta") or {}
    if not isinstance(meta, dict):
        raise UserError(f"{where}: meta must be an object")
    return Record(
        id=str(name.rpartition(" ")[2] if row.get("id") is None else row["id"]),
        prompt=prompt,
        references=tuple(files.path(item) for item in references),
        subject=str(row.get("subject") or ""),
        target=files.path(target) if target is not None else None,
        masks=tuple(None if item is None else files.path(item) for item in masks),
        mask_threshold=threshold,
        meta=meta,
    )


def _first(row: dict[str, Any], keys: tuple[str, ...]) -> Any:
    return next((row[key] for key in keys if row.get(key) is not None), None)


def _names(item: Any) -> bool:
    """Whether it could name a file; the null byte is what no file system takes."""
    return isinstance(item, str) and bool(item) and "\0" not in item
