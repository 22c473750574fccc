"""Manifest files, row by row; fields.py says what a row holds."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgrpo.data.fields import id_of, names_file
from cgrpo.errors import UserError
from cgrpo.text import cure_for, decoded, first_bytes, parse_json
from cgrpo.types import Task


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


Rows = list[Task | Fault | LeftOut]


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


_EMPTY = ("nan", "NaN", "None", "null", "NULL")  # what programs write into a cell that has nothing
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
    """Rows of CSV or TSV with a header; empty cells are left out, and those that say in a word that they are."""
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
        given: dict[str, Any] = {key: value for key, value in row.items() if value and value not in _EMPTY}
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


def scan_rows(rows: list[Any], parse: Callable[[Any, str], Task | LeftOut]) -> Iterator[Task | Fault | LeftOut]:
    """``parse`` of each row and its name ("record 3"); what it raises becomes a Fault."""
    for number, row in enumerate(rows):
        if isinstance(row, Fault):
            yield row
            continue
        try:
            yield parse(row, f"record {number}")
        except UserError as error:
            yield Fault((id_of(row) if isinstance(row, dict) else None) or str(number), str(error))
