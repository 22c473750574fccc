"""A row of a data set and the task that it becomes: all checks of what a row says are here.

Every reader yields rows as ``Entry``. A row is an object; fields.py has the names of its fields:
    prompt       (or text, caption, instruction, ...: see PROMPTS) what to show
    references   (or one of REFERENCES, also numbered: control_path_1, control_path_2) the subject's pictures, or one
    image        (or images, file_name, file_names, image_path) the references, if there are none by those names; or
                 else a single one is the target
    target       (or one of TARGETS) optional
    masks (or mask), mask_threshold, subject (or item), id, meta: optional, see types.Task; subject may be a list with
                 a phrase for each reference, where these show several subjects
Null and NaN stand for what is absent. Names of pictures may end in _file_name or _file_names, as in Hugging Face's
imagefolders. A list may be a text, as in a table's cell: ["a.png", "b.png"] or a.png, b.png.

The target of an editing data set must never become its own reference. So a lone image next to a field that by its name
is what the image was made from is refused, whatever that field holds.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cgrpo.data.archives import INSIDE, Files, is_file
from cgrpo.data.fields import (
    IMAGES,
    MASKS,
    NEVER_REFERENCES,
    NUMBERED,
    ONE_IMAGE,
    PROMPTS,
    REFERENCES,
    TARGETS,
    condition_name,
    has_picture_ending,
    is_further_picture,
    is_unicode,
    listed,
    names_file,
    picture_files,
    plain,
    refuse_address,
)
from cgrpo.errors import UserError
from cgrpo.pictures import ENDINGS
from cgrpo.text import is_blank
from cgrpo.types import Task


@dataclass(frozen=True)
class Entry:
    """A row that isn't checked yet.

    fields  the object described above, or whatever stands in its place
    where   begins every message about the row: "train.json, row 3"
    id      the row's id where its fields have none
    files   resolves the names of its pictures
    """

    fields: Any
    where: str
    id: str
    files: Files


@dataclass(frozen=True)
class Fault:
    """A row that is no task: its id, and one line that says why."""

    id: str
    message: str


@dataclass(frozen=True)
class LeftOut:
    """A row that the data set's own quality filter leaves out: its id, and why."""

    id: str
    reason: str


Rows = list[Task | Fault | LeftOut]


def task_of(entry: Entry) -> Task:
    """The task of a row. Raises UserError."""
    where, files = entry.where, entry.files
    if not isinstance(entry.fields, dict):
        raise UserError(f"{where}: must be an object with prompt and references")
    row = _present({plain(key): value for key, value in entry.fields.items() if plain(key) != key} | entry.fields)
    row = _with_numbered(row, files)
    prompt = next((row[key] for key in PROMPTS if row.get(key) is not None and not _is_empty(row[key])), None)
    if not isinstance(prompt, str) or not is_unicode(prompt):
        raise UserError(f"{where}: prompt is missing, empty or no text{_fields_instead(row, PROMPTS)}")
    references, target = _references_and_target(row, where, files)
    masks = [] if (masks := _first(row, MASKS)) is None else listed(masks, files)
    if len(masks) not in (0, len(references)) or not all(item is None or names_file(item) for item in masks):
        raise UserError(f"{where}: masks must be a list with one file, or null, for each reference")
    threshold = 127 if row.get("mask_threshold") is None else row["mask_threshold"]
    if not isinstance(threshold, int) or isinstance(threshold, bool) or not 0 <= threshold < 255:
        raise UserError(f"{where}: mask_threshold must be a whole number from 0 to 254; brighter pixels are subject")
    subject, phrases = _subject_and_phrases(row, len(references), where)
    meta = row.get("meta") or {}
    if not isinstance(meta, dict):
        raise UserError(f"{where}: meta must be an object")
    paths, target_path = tuple(map(files.path, references)), None if target is None else files.path(target)
    if target_path in paths:
        raise UserError(f"{where}: its target {target} is its own reference", "leave the row out")
    return Task(
        id=(id_of(row) or entry.id).encode(errors="backslashreplace").decode(),  # names of files need not be Unicode
        prompt=prompt,
        references=paths,
        subject="" if is_blank(subject) else subject,
        target=target_path,
        phrases=phrases,
        masks=tuple(None if item is None else files.path(item) for item in masks),
        mask_threshold=threshold,
        meta=_present(meta),
    )


def _subject_and_phrases(row: dict[str, Any], references: int, where: str) -> tuple[str, tuple[str, ...]]:
    """The phrase of a row's one subject, or those of several, one for each reference. Raises UserError."""
    subject = row.get("subject") or row.get("item") or ""
    if isinstance(subject, str):
        return subject, ()
    if not isinstance(subject, list) or not all(isinstance(word, str) and not is_blank(word) for word in subject):
        raise UserError(f"{where}: subject must be a word or a phrase to look for, not {ascii(subject)[:40]}")
    if len(subject) != references:
        raise UserError(
            f"{where}: {len(subject)} subjects for {references} references",
            "give one phrase for each reference, or one for all as a text",
        )
    several = len(subject) > 1
    return " and ".join(dict.fromkeys(subject)), tuple(subject) if several else ()


def id_of(row: Any) -> str | None:
    """A row's id; None where it has none. 1.0 is 1: programs write whole numbers so in a column with gaps."""
    value = row.get("id") if isinstance(row, dict) else None
    if value is None or value != value or _is_empty(value):
        return None
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def _present(table: dict[str, Any]) -> dict[str, Any]:
    """Without NaN, which is how programs that keep tables write what is absent."""
    return {key: value for key, value in table.items() if not (isinstance(value, float) and math.isnan(value))}


def _with_numbered(row: dict[str, Any], files: Files) -> dict[str, Any]:
    """The row with control_path_1, control_path_2, ... as one list under their common name."""
    series: dict[str, list[tuple[int, str]]] = {}
    for key in row:
        match = NUMBERED.fullmatch(key)
        if match and match[1] in REFERENCES and row[key] is not None:
            series.setdefault(match[1], []).append((int(match[2]), key))
    for name, keys in series.items():
        values = [row.get(name), *(row[key] for _, key in sorted(keys))]
        row = row | {name: [item for value in values if value is not None for item in listed(value, files)]}
    return row


def _references_and_target(row: dict[str, Any], where: str, files: Files) -> tuple[list[str], str | None]:
    """The references and the target, by name. Raises UserError, also if the row doesn't say which is which."""
    target = _first(row, TARGETS)
    named = next((key for key in (*REFERENCES, *IMAGES) if row.get(key) is not None), None)
    references = [] if named is None else listed(row[named], files)
    rivals: Iterable[str] = (*REFERENCES, *TARGETS)
    if named not in REFERENCES:
        others = [key for key in row if plain(key) not in NEVER_REFERENCES]
        rivals = others if target is None else (*IMAGES, *TARGETS)
    elif target is None:
        target = next((row[key] for key in ONE_IMAGE if isinstance(row.get(key), str)), None)
        rivals = (*rivals, *ONE_IMAGE)
    if not references or not all(names_file(item) for item in references):
        instead = _fields_instead(row, (*REFERENCES, *IMAGES))
        raise UserError(f"{where}: references (or image_paths) must be a list of picture files{instead}")
    if target is not None and not names_file(target):
        raise UserError(f"{where}: target must be a picture file")
    for item in (*references, *([] if target is None else [target])):
        refuse_address(item, where)
    for key in rivals:
        others = [item for item in picture_files(row.get(key), files) if item not in (*references, target)]
        # A lost file is one, too, where the field's name says that it holds a picture.
        there = others and (is_further_picture(key) or all(is_file(files.path(item)) for item in others))
        if there or (target is None and named in IMAGES and _is_condition(key, row[key], files)):
            raise UserError(
                f"{where}: {key} names a picture too ({ascii(others[0] if others else row[key])[:60]}), and the row "
                "doesn't say which one is the reference",
                "call the subject's references, and the picture that shows the prompt, if any, target",
            )
    return references, target


def _is_condition(field: str, value: Any, files: Files) -> bool:
    kind = "" if isinstance(value, bool) else condition_name(field)
    if not value:  # of an editing set, a row that lacks its source
        return kind == "sure"
    return kind == "sure" or (kind == "perhaps" and any(_may_be_picture(item, files) for item in listed(value, files)))


def _may_be_picture(value: Any, files: Files) -> bool:
    if not isinstance(value, str):
        return not isinstance(value, int | float)
    if has_picture_ending(value) or INSIDE in value:
        return True
    return names_file(value) and value.isprintable() and any(is_file(files.path(value + ending)) for ending in ENDINGS)


def _fields_instead(row: dict[str, Any], wanted: tuple[str, ...]) -> str:
    """What a row has instead, where it has none of the ``wanted`` fields."""
    if any(key in row for key in wanted):
        return ""
    keys = ", ".join(str(key) if is_unicode(str(key)) else ascii(key)[1:-1] for key in list(row)[:12])
    return f"; it has {keys or 'nothing'}, and should have {' or '.join(wanted[:3])}"


def _first(row: dict[str, Any], keys: tuple[str, ...]) -> Any:
    return next((row[key] for key in keys if row.get(key) is not None), None)


def _is_empty(value: Any) -> bool:
    return isinstance(value, str) and is_blank(value)
