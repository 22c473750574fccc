"""A row of a data set and the task that it becomes: all checks of what a row says are here.

Every reader yields rows as ``Entry``. A row is an object:
    prompt       (or text, caption, instruction, edit_prompt) what to show
    references   (or one of REFERENCES, also numbered: control_path_1, control_path_2) the subject's pictures, or one
    image        (or images, file_name, file_names, image_path) the references, if there are none by those names; or
                 else a single one is the target
    target       (or one of TARGETS) optional
    masks (or mask), mask_threshold, subject (or item), id, meta: optional, see types.Task
Null and NaN stand for what is absent. Names of pictures may end in _file_name or _file_names, as in Hugging Face's
imagefolders. A list may be a text, as in a table's cell: ["a.png", "b.png"] or a.png, b.png.

The target of an editing data set must never become its own reference. So a lone image next to a field that by its name
is what the image was made from is refused, whatever that field holds.
"""

from __future__ import annotations

import ast
import functools
import math
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from cgrpo.data.archives import INSIDE, Files, is_file
from cgrpo.errors import UserError
from cgrpo.pictures import ENDINGS
from cgrpo.text import is_blank
from cgrpo.types import Task

PROMPTS = ("prompt", "text", "caption", "instruction", "edit_prompt")
_PLAIN = ("references", "reference", "image_paths", "reference_images", "reference_image")
REFERENCES = (
    *_PLAIN,
    "edit_image", "kontext_images",  # DiffSynth's and DyRef's
    "control_path",  # musubi-tuner's and ai-toolkit's
    "input_paths", "input_images",  # PSRBench's, OmniContext's
    "input_image", "source_image", "original_image",  # of sets after InstructPix2Pix
)  # fmt: skip
IMAGES = ("images", "image", "file_names", "file_name", "image_path")
_ONE_IMAGE = ("image", "file_name", "image_path")  # the target next to references
TARGETS = ("target", "target_image", "image_tgt_path", "output_image", "edited_image")
MASKS = ("masks", "mask")
PICTURES = (*REFERENCES, *IMAGES, *TARGETS, *MASKS)
VALUES = (*PROMPTS, "id", "subject", "item", "mask_threshold", "meta")
_NEVER_REFERENCES = (*MASKS, "winner", "loser")
MOST_BYTES = 4095  # of a path
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|data:")
_NUMBERED = re.compile(r"(.+?)_?(\d{1,4})")

# Words of fields that hold what an image was made from. Those that mean other things as well, as "source" may be a web
# site's name, count next to a word for pictures, or where the value could be a picture.
_CONDITION = {
    "before", "cond", "conditional", "conditioning", "conditions", "control", "controlnet", "controls", "hint",
    "kontext", "ref", "refs", "reference", "references", "src", "unedited",
}  # fmt: skip
_PERHAPS = {
    "canny", "condition", "context", "depth", "edges", "edit", "edits", "face", "first", "garment", "init", "initial",
    "input", "inputs", "lineart", "object", "orig", "original", "originals", "person", "pose", "raw", "scribble",
    "sketch", "source", "sources", "start", "style", "subject",
}  # fmt: skip
_PICTURE_WORDS = {
    "file", "filename", "filenames", "files", "image", "images", "img", "imgs", "name", "names", "path", "paths",
    "photo", "photos", "pic", "pics", "picture", "pictures",
}  # fmt: skip


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
    row = _with_numbered(row)
    prompt = next((row[key] for key in PROMPTS if row.get(key) is not None and not _is_empty(row[key])), None)
    if not isinstance(prompt, str) or not is_unicode(prompt):
        raise UserError(f"{where}: prompt is missing, empty or no text{_fields_instead(row, PROMPTS)}")
    references, target = _references_and_target(row, where, files)
    masks = [] if (masks := _first(row, MASKS)) is None else _listed(masks)
    if len(masks) not in (0, len(references)) or not all(item is None or names_file(item) for item in masks):
        raise UserError(f"{where}: masks must be a list with one file, or null, for each reference")
    threshold = 127 if row.get("mask_threshold") is None else row["mask_threshold"]
    if not isinstance(threshold, int) or isinstance(threshold, bool) or not 0 <= threshold < 255:
        raise UserError(f"{where}: mask_threshold must be a whole number from 0 to 254; brighter pixels are subject")
    subject = row.get("subject") or row.get("item") or ""
    if not isinstance(subject, str):
        raise UserError(f"{where}: subject must be a word or a phrase to look for, not {ascii(subject)[:40]}")
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
        masks=tuple(None if item is None else files.path(item) for item in masks),
        mask_threshold=threshold,
        meta=_present(meta),
    )


def id_of(row: Any) -> str | None:
    """A row's id; None where it has none. 1.0 is 1: programs write whole numbers so in a column with gaps."""
    value = row.get("id") if isinstance(row, dict) else None
    if value is None or value != value or _is_empty(value):
        return None
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def _present(table: dict[str, Any]) -> dict[str, Any]:
    """Without NaN, which is how programs that keep tables write what is absent."""
    return {key: value for key, value in table.items() if not (isinstance(value, float) and math.isnan(value))}


def _with_numbered(row: dict[str, Any]) -> dict[str, Any]:
    """The row with control_path_1, control_path_2, ... as one list under their common name."""
    series: dict[str, list[tuple[int, str]]] = {}
    for key in row:
        match = _NUMBERED.fullmatch(key)
        if match and match[1] in REFERENCES and row[key] is not None:
            series.setdefault(match[1], []).append((int(match[2]), key))
    for name, keys in series.items():
        values = [row.get(name), *(row[key] for _, key in sorted(keys))]
        row = row | {name: [item for value in values if value is not None for item in _listed(value)]}
    return row


def _references_and_target(row: dict[str, Any], where: str, files: Files) -> tuple[list[str], str | None]:
    """The references and the target, by name. Raises UserError, also if the row doesn't say which is which."""
    target = _first(row, TARGETS)
    named = next((key for key in (*REFERENCES, *IMAGES) if row.get(key) is not None), None)
    references = [] if named is None else _listed(row[named])
    rivals: Iterable[str] = (*REFERENCES, *TARGETS)
    if named not in REFERENCES:
        rivals = (*IMAGES, *TARGETS) if target is not None else [key for key in row if key not in _NEVER_REFERENCES]
    elif target is None:
        target = next((row[key] for key in _ONE_IMAGE if isinstance(row.get(key), str)), None)
        rivals = (*rivals, *_ONE_IMAGE)
    if not references or not all(names_file(item) for item in references):
        instead = _fields_instead(row, (*REFERENCES, *IMAGES))
        raise UserError(f"{where}: references (or image_paths) must be a list of picture files{instead}")
    if target is not None and not names_file(target):
        raise UserError(f"{where}: target must be a picture file")
    for item in (*references, *([] if target is None else [target])):
        refuse_address(item, where)
    for key in rivals:
        others = [item for item in _picture_files(row.get(key)) if item not in (*references, target)]
        there = others and all(is_file(files.path(item)) for item in others)
        if there or (target is None and named in IMAGES and _is_condition(key, row[key], files)):
            raise UserError(
                f"{where}: {key} names a picture too ({ascii(others[0] if others else row[key])[:60]}), and the row "
                "doesn't say which one is the reference",
                "call the subject's references, and the picture that shows the prompt, if any, target",
            )
    return references, target


def _listed(value: Any) -> list[Any]:
    """What a field of pictures names: one, a list, or a list as a text. {"path": name} is a name, too."""
    if isinstance(value, str):
        if value.lstrip().startswith(("[", "{")):
            with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
                value = ast.literal_eval(value.strip())
        else:
            parts = [part.strip() for part in re.split("[,;|]", value)]
            value = parts if all(map(has_picture_ending, parts)) else value
    items = value if isinstance(value, list) else [value]
    return [
        item["path"] if isinstance(item, dict) and item.get("bytes") is None and "path" in item else item
        for item in items
    ]


def has_picture_ending(name: str) -> bool:
    """Whether it ends as pictures' files do; an address may have a query."""
    return PurePosixPath(name.partition("?")[0]).suffix.lower() in ENDINGS


@functools.lru_cache(1024)
def condition_name(field: str) -> Literal["sure", "perhaps", ""]:
    """Whether a field by its name holds what an image next to it was made from, as in editing data sets.

    sourceImage2 and source_image have the same two words.
    """
    words = set(re.findall("[a-z]+", re.sub("(?<=[a-z0-9])(?=[A-Z])", " ", field).lower()))
    role = words - _PICTURE_WORDS
    if not role or not role <= _CONDITION | _PERHAPS or field in VALUES or plain(field) in _PLAIN:
        return ""
    return "sure" if role & _CONDITION or role < words else "perhaps"


def _is_condition(field: str, value: Any, files: Files) -> bool:
    kind = "" if isinstance(value, bool) else condition_name(field)
    if not value:  # of an editing set, a row that lacks its source
        return kind == "sure"
    return kind == "sure" or (kind == "perhaps" and any(_may_be_picture(item, files) for item in _listed(value)))


def _may_be_picture(value: Any, files: Files) -> bool:
    if not isinstance(value, str):
        return not isinstance(value, int | float)
    if has_picture_ending(value) or INSIDE in value:
        return True
    return names_file(value) and value.isprintable() and any(is_file(files.path(value + ending)) for ending in ENDINGS)


def _picture_files(value: Any) -> list[str]:
    """The files of pictures, by their endings, that a field of unknown use names."""
    named = [item for item in _listed(value) if names_file(item) and not _ADDRESS.match(item)]
    return [item for item in named if has_picture_ending(item) and len(item) <= MOST_BYTES]


def _fields_instead(row: dict[str, Any], wanted: tuple[str, ...]) -> str:
    """What a row has instead, where it has none of the ``wanted`` fields."""
    if any(key in row for key in wanted):
        return ""
    keys = ", ".join(str(key) if is_unicode(str(key)) else ascii(key)[1:-1] for key in list(row)[:12])
    return f"; it has {keys or 'nothing'}, and should have {' or '.join(wanted[:3])}"


def plain(key: str) -> str:
    """A field's name without Hugging Face's _file_name, if it names pictures."""
    for suffix in ("_file_name", "_file_names"):
        if key.endswith(suffix) and key.removesuffix(suffix) in PICTURES:
            return key.removesuffix(suffix)
    return key


def common_name(key: str) -> str:
    """The name in PICTURES of a field of pictures: without Hugging Face's ending, or a number. Else its own."""
    match = _NUMBERED.fullmatch(key)
    return match[1] if match and match[1] in REFERENCES else plain(key)


def _first(row: dict[str, Any], keys: tuple[str, ...]) -> Any:
    return next((row[key] for key in keys if row.get(key) is not None), None)


def _is_empty(value: Any) -> bool:
    return isinstance(value, str) and is_blank(value)


def is_address(item: str) -> bool:
    """Whether it names something on the net, or is the picture itself, rather than a file."""
    return _ADDRESS.match(item) is not None


def refuse_address(item: str, where: str) -> None:
    """Raise UserError for an address or a picture's own data in the place of a file's name."""
    if is_address(item):
        raise UserError(f"{where}: {item[:80]} is an address", "fetch it, and give the file's name")
    if len(item.encode(errors="surrogateescape")) > MOST_BYTES:
        problem = f"{item[:30]}... ({len(item)} characters) is no file's name"
        raise UserError(f"{where}: {problem}", "if it is the picture itself, save it to a file")


def names_file(item: Any) -> bool:
    """Whether it could name a file: no file system takes the null byte, or half of a surrogate pair."""
    try:
        return isinstance(item, str) and bool(os.fsencode(item)) and "\0" not in item
    except UnicodeEncodeError:
        return False


def is_unicode(text: str) -> bool:
    """Whether all that takes text takes it; JSON can hold half of a surrogate pair."""
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False
