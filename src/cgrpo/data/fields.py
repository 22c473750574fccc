"""What a row of a manifest says.

A row is an object:
    prompt       (or text, caption) what to show
    references   (or reference, UNO's image_paths, reference_images, reference_image) the subject's pictures, or one
    image        (or images, file_name, file_names) the references, if there are none by those names; or else a single
                 one is the target
    target       (or target_image, UNO's image_tgt_path) optional
    masks (or mask), mask_threshold, subject (or item), id, meta: optional, see types.Task
Null and NaN are what is not there. Any of the pictures' names may end in _file_name or _file_names, as in Hugging
Face's imagefolders.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

from cgrpo.data.archives import Files, is_file
from cgrpo.errors import UserError
from cgrpo.pictures import ENDINGS
from cgrpo.text import is_blank
from cgrpo.types import Task

PROMPT_KEYS = ("prompt", "text", "caption")
REFERENCE_KEYS = ("references", "reference", "image_paths", "reference_images", "reference_image")
IMAGE_KEYS = ("images", "image", "file_names", "file_name")
SINGLE = ("reference", "reference_image", "image", "file_name")  # may name one picture rather than a list
TARGET_KEYS = ("target", "target_image", "image_tgt_path")
MASK_KEYS = ("masks", "mask")
PICTURE_KEYS = (*REFERENCE_KEYS, *IMAGE_KEYS, *TARGET_KEYS, *MASK_KEYS)
MOST_BYTES = 4095  # of a path
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|data:")
_OTHER_ROLES = (*MASK_KEYS, "winner", "loser")  # of pictures that are never references
VALUE_KEYS = (*PROMPT_KEYS, "id", "subject", "item", "mask_threshold", "meta")


def record_of(row: Any, name: str, manifest: str, files: Files) -> Task:
    """The record of a row; ``name`` ends in the number that is its id if it has none. Raises UserError."""
    where = f"manifest {manifest}, {name}"
    if not isinstance(row, dict):
        raise UserError(f"{where}: must be an object with prompt and references")
    row = _said({plain(key): value for key, value in row.items() if plain(key) != key} | row)
    prompt = next((row[key] for key in PROMPT_KEYS if row.get(key) is not None and not _is_empty(row[key])), None)
    if not isinstance(prompt, str) or not is_unicode(prompt):
        raise UserError(f"{where}: prompt is missing, empty or no text{_names(row, PROMPT_KEYS)}")
    references, target = _pictures(row, where, files)
    masks = _masks(row)
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
    return Task(
        id=id_of(row) or name.rpartition(" ")[2],
        prompt=prompt,
        references=tuple(files.path(item) for item in references),
        subject="" if is_blank(subject) else subject,
        target=files.path(target) if target is not None else None,
        masks=tuple(None if item is None else files.path(item) for item in masks),
        mask_threshold=threshold,
        meta=_said(meta),
    )


def id_of(row: dict[str, Any]) -> str | None:
    """A row's id; None where it has none. Whole numbers are whole: in a column with gaps, programs write 1.0."""
    given = row.get("id")
    if given is None or given != given or _is_empty(given):
        return None
    return str(int(given) if isinstance(given, float) and given.is_integer() else given)


def _said(table: dict[str, Any]) -> dict[str, Any]:
    """Without NaN, which is how programs that keep tables write what is not there."""
    return {key: value for key, value in table.items() if not (isinstance(value, float) and math.isnan(value))}


def _pictures(row: dict[str, Any], where: str, files: Files) -> tuple[list[str], str | None]:
    """The references and the target, by name. Raises UserError, also where it is not said which is which."""
    references, target = _first(row, REFERENCE_KEYS), _first(row, TARGET_KEYS)
    rivals: Iterable[str] = (*REFERENCE_KEYS, *TARGET_KEYS)
    if references is None:
        references = _first(row, IMAGE_KEYS)
        rivals = (*IMAGE_KEYS, *TARGET_KEYS) if target is not None else [key for key in row if key not in _OTHER_ROLES]
    elif target is None:
        target = next((row[key] for key in ("image", "file_name") if isinstance(row.get(key), str)), None)
        rivals = (*rivals, "image", "file_name")
    if isinstance(references, str) and any(row.get(key) == references for key in SINGLE):
        references = [references]
    if not isinstance(references, list) or not references or not all(names_file(item) for item in references):
        instead = _names(row, (*REFERENCE_KEYS, *IMAGE_KEYS))
        raise UserError(f"{where}: references (or image_paths) must be a list of picture files{instead}")
    for item in (*references, target):
        if isinstance(item, str):
            refuse_address(item, where)
    if target is not None and not names_file(target):
        raise UserError(f"{where}: target must be a picture file")
    for key in rivals:
        left = [item for item in _picture_files(row.get(key)) if item not in (*references, target)]
        if left and all(is_file(files.path(item)) for item in left):
            raise UserError(
                f"{where}: {key} names a picture too ({left[0]}), and it is not said which one is the reference; call "
                "the subject's references, and the picture that shows the prompt, if any, target"
            )
    return references, target


def _picture_files(value: Any) -> list[str]:
    """The files of pictures, by their endings, that a field of unknown use names."""
    items = value if isinstance(value, list) else [value]
    named = [item for item in items if names_file(item) and not is_address(item)]
    return [item for item in named if PurePosixPath(item).suffix.lower() in ENDINGS and len(item) <= MOST_BYTES]


def _names(row: dict[str, Any], known: tuple[str, ...]) -> str:
    """What a row has instead, where it has none of the ``known`` fields."""
    if any(key in row for key in known):
        return ""
    found = ", ".join(ascii(key)[1:-1] if not is_unicode(str(key)) else str(key) for key in list(row)[:12])
    return f"; it has {found or 'nothing'}, and should have {' or '.join(known[:3])}"


def plain(key: str) -> str:
    """A column's name without Hugging Face's _file_name, if it names pictures."""
    for suffix in ("_file_name", "_file_names"):
        if key.endswith(suffix) and key.removesuffix(suffix) in PICTURE_KEYS:
            return key.removesuffix(suffix)
    return key


def _masks(row: dict[str, Any]) -> list[Any]:
    """The masks, [] if there are none; what is no list is an only mask, be it right or wrong."""
    masks = _first(row, MASK_KEYS)
    if masks is None:
        return []
    return masks if isinstance(masks, list) else [masks]


def _first(row: dict[str, Any], keys: tuple[str, ...]) -> Any:
    return next((row[key] for key in keys if row.get(key) is not None), None)


def _is_empty(prompt: Any) -> bool:
    return isinstance(prompt, str) and is_blank(prompt)


def is_address(item: str) -> bool:
    """Whether it names something on the net, or is the picture itself, rather than a file."""
    return _ADDRESS.match(item) is not None


def refuse_address(item: str, where: str) -> None:
    """Raises UserError for what is no file's name, but people write where one is asked for."""
    if is_address(item):
        raise UserError(f"{where}: {item[:80]} is an address; pictures are read from disk: fetch it, name the file")
    if len(item.encode(errors="surrogateescape")) > MOST_BYTES:
        raise UserError(
            f"{where}: {item[:30]}... ({len(item)} characters) is no file's name; if it is the picture itself, save "
            "it to a file"
        )


def names_file(item: Any) -> bool:
    """Whether it could name a file; the null byte is what no file system takes."""
    return isinstance(item, str) and bool(item) and "\0" not in item and is_unicode(item)


def is_unicode(text: str) -> bool:
    """JSON can hold half of a surrogate pair, which nothing that takes text will take."""
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False
