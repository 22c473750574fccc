"""Manifest files, row by row.

A row is an object:
    prompt       (or text, caption) what to show
    references   (or reference, UNO's image_paths, reference_images, reference_image) the subject's pictures, or one
    image        (or images, file_name, file_names) the references, if there are none by those names; or else a single
                 one is the target
    target       (or target_image, UNO's image_tgt_path) optional
    masks (or mask), mask_threshold, subject (or item), id, meta: optional, see types.Record
Any of the pictures' names may end in _file_name or _file_names, as in Hugging Face's imagefolders.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgrpo.data.archives import Files
from cgrpo.errors import UserError
from cgrpo.text import cure_for, decoded, first_bytes, is_blank, parse_json
from cgrpo.types import Record

PROMPT_KEYS = ("prompt", "text", "caption")
REFERENCE_KEYS = ("references", "reference", "image_paths", "reference_images", "reference_image")
IMAGE_KEYS = ("images", "image", "file_names", "file_name")
SINGLE = ("reference", "reference_image", "image", "file_name")  # may name one picture rather than a list
TARGET_KEYS = ("target", "target_image", "image_tgt_path")
MASK_KEYS = ("masks", "mask")
PICTURE_KEYS = (*REFERENCE_KEYS, *IMAGE_KEYS, *TARGET_KEYS, *MASK_KEYS)
MOST_BYTES = 4095  # of a path
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|data:")
VALUE_KEYS = (*PROMPT_KEYS, "id", "subject", "item", "mask_threshold", "meta")


@dataclass(frozen=True)
class Fault:
    """A row that is no record: what it is called, and the one line that says why."""

    id: str
    message: str


@dataclass(frozen=True)
class LeftOut:
    """A row that the data set's own quality filter leaves out: what it is called, and why."""

    id: str
    reason: str


Rows = list[Record | Fault | LeftOut]


def load_rows(path: Path) -> tuple[list[Any], str]:
    """The rows of a .json, .jsonl (.ndjson), .csv or .tsv file, and the folder it names for its pictures ("": its own).

    A line that isn't JSON is a Fault among the rows. Raises UserError if the file can't be read or has no list.
    """
    try:
        text, ending = _text(path)
        if ending in _TABLES:
            return _table(text, f"manifest {path}", _TABLES[ending]), ""
        rows = _json(text, f"manifest {path}", lines=ending in (".jsonl", ".ndjson"))
    except (OSError, ValueError, EOFError, RecursionError, zlib.error, csv.Error) as error:
        kind = "CSV" if set(path.suffixes) & _TABLES.keys() else "JSON"
        cure = cure_for(first_bytes(path), "")
        raise UserError(f"manifest {path}: can't be read as {kind} ({error}){cure and f'; {cure}'}") from error
    given = ""
    if isinstance(rows, dict) and "records" in rows:
        rows, given = rows["records"], rows.get("root") or ""
        if given and not names_file(given):
            raise UserError(f"manifest {path}: root must be the folder of the pictures, relative to the file")
    if not isinstance(rows, list):  # an empty one is for who asks to refuse, by what it lacks
        raise UserError(f"manifest {path}: holds no records; give a list of {{prompt, references}}")
    return rows, given


_TABLES = {".csv": ",", ".tsv": "\t"}
_PACKED = {
    ".zip": "unpack it, and give the folder or the manifest in it",
    ".tar.gz": "gunzip it: an uncompressed .tar is read as it is",
    ".tgz": "gunzip it: an uncompressed .tar is read as it is",
    ".tar.bz2": "bunzip2 it: an uncompressed .tar is read as it is",
    ".tar.xz": "unxz it: an uncompressed .tar is read as it is",
    ".tar.zst": "unzstd it: an uncompressed .tar is read as it is",
    ".7z": "unpack it, and give the folder or the manifest in it",
    ".rar": "unpack it, and give the folder or the manifest in it",
    ".xlsx": "save it as CSV",
    ".arrow": "save it as parquet",
    ".feather": "save it as parquet",
    ".yaml": "save it as JSON",
    ".yml": "save it as JSON",
}


def _text(path: Path) -> tuple[str, str]:
    """The text of a manifest, gunzipped where it is one, and its ending. Raises UserError for a known other format."""
    name = path.name.lower()
    for ending, cure in _PACKED.items():
        if name.endswith(ending):
            raise UserError(f"{path}: {ending} is not read as a data set; {cure}")
    content = path.read_bytes()
    if name.endswith(".gz"):
        content, name = gzip.decompress(content), name.removesuffix(".gz")
    return decoded(content), Path(name).suffix


def _json(text: str, where: str, *, lines: bool) -> Any:
    """A list or a table, or a list of what its ``lines`` hold; of either under the other's name, what it is.

    Raises ValueError.
    """
    if not lines or text.lstrip()[:1] == "[":
        try:
            return parse_json(text)
        except json.JSONDecodeError as error:
            if not lines and error.msg != "Extra data":  # what follows a whole value is the next line
                raise
    numbered = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    return [_line(line, f"{where}, line {number}") for number, line in numbered]


def _line(line: str, where: str) -> Any:
    try:
        return parse_json(line)
    except (ValueError, RecursionError) as error:  # ValueError: a number of thousands of digits, too
        return Fault(where.rpartition(" ")[2], f"{where}: not JSON ({error}); one row a line")


def _table(text: str, where: str, delimiter: str) -> list[Any]:
    """Rows of CSV or TSV with a header; empty cells are left out."""
    rows: list[Any] = []
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    names = [name.strip() for name in reader.fieldnames or ()]
    if twice := [name for name in names if name and names.count(name) > 1]:
        raise UserError(f"{where}: has two columns {twice[0]}; leave one out")
    reader.fieldnames = names
    for row in reader:
        if None in row:
            rows.append(Fault(str(len(rows)), f"{where}, record {len(rows)}: has more cells than the header"))
            continue
        given: dict[str, Any] = {key: value for key, value in row.items() if value}
        if given.get("mask_threshold", "").isdecimal():
            given["mask_threshold"] = int(given["mask_threshold"])
        rows.append(given)
    return rows


def scan_files(files: list[Path], scan: Callable[[Path], Iterator[Any]]) -> Rows:
    """The rows of all files; one that can't be read (on) is a Fault in its place, unless that leaves nothing."""
    rows: Rows = []
    errors: list[UserError] = []
    for file in files:
        try:
            for row in scan(file):
                rows.append(row)
        except UserError as error:
            errors.append(error)
            rows.append(Fault(file.name, str(error)))
    if errors and len(rows) == len(errors):
        raise errors[0]
    return rows


def scan_rows(rows: list[Any], parse: Callable[[Any, str], Record | LeftOut]) -> Iterator[Record | Fault | LeftOut]:
    """``parse`` of each row and its name ("record 3"); what it raises becomes a Fault."""
    for number, row in enumerate(rows):
        if isinstance(row, Fault):
            yield row
            continue
        try:
            yield parse(row, f"record {number}")
        except UserError as error:
            named = isinstance(row, dict) and row.get("id") is not None
            yield Fault(str(row["id"] if named else number), str(error))


def record_of(row: Any, name: str, manifest: str, files: Files) -> Record:
    """The record of a row; ``name`` ends in the number that is its id if it has none. Raises UserError."""
    where = f"manifest {manifest}, {name}"
    if not isinstance(row, dict):
        raise UserError(f"{where}: must be an object with prompt and references")
    row = {plain(key): value for key, value in row.items() if plain(key) != key} | row
    prompt = next((row[key] for key in PROMPT_KEYS if row.get(key) is not None and not _is_empty(row[key])), None)
    if not isinstance(prompt, str) or not is_unicode(prompt):
        raise UserError(f"{where}: prompt is missing, empty or no text{_names(row, PROMPT_KEYS)}")
    references, target = _first(row, REFERENCE_KEYS), _first(row, TARGET_KEYS)
    if references is None:
        references = _first(row, IMAGE_KEYS)
    elif target is None:
        target = next((row[key] for key in ("image", "file_name") if isinstance(row.get(key), str)), None)
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
    masks = _masks(row)
    if len(masks) not in (0, len(references)) or not all(item is None or names_file(item) for item in masks):
        raise UserError(f"{where}: masks must be a list with one file, or null, for each reference")
    threshold = row.get("mask_threshold", 127)
    if not isinstance(threshold, int) or isinstance(threshold, bool) or not 0 <= threshold < 255:
        raise UserError(f"{where}: mask_threshold must be a whole number from 0 to 254; brighter pixels are subject")
    subject = row.get("subject") or row.get("item") or ""
    if isinstance(subject, list | dict):
        raise UserError(f"{where}: subject must be a word or a phrase")
    meta = row.get("meta") or {}
    if not isinstance(meta, dict):
        raise UserError(f"{where}: meta must be an object")
    return Record(
        id=str(name.rpartition(" ")[2] if row.get("id") is None else row["id"]),
        prompt=prompt,
        references=tuple(files.path(item) for item in references),
        subject=str(subject),
        target=files.path(target) if target is not None else None,
        masks=tuple(None if item is None else files.path(item) for item in masks),
        mask_threshold=threshold,
        meta=meta,
    )


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
