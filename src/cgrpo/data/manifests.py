"""Lists of rows: .json, .jsonl (.ndjson), .csv and .tsv files, and Hugging Face's imagefolders, which have one.

.json     a list of rows, or {"records": [rows], "root": folder of the pictures, relative to the file}
.jsonl    a row a line
.csv      a header, and a row a line
folder    metadata.jsonl or metadata.csv (or Flow-Factory's train.jsonl) whose rows name pictures by file_name, in it
          or in its train/
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cgrpo.data.archives import Files
from cgrpo.data.dialects import dialect_of
from cgrpo.data.fields import condition_name, names_file
from cgrpo.data.tasks import Entry, Fault
from cgrpo.errors import UserError
from cgrpo.files import reading
from cgrpo.text import decoded, parse_json

LISTS = ("metadata.jsonl", "metadata.csv", "train.jsonl")  # of folders
_EMPTY = ("nan", "NaN", "None", "null", "NULL")  # what programs write into an empty cell
_TABLES = {".csv": ",", ".tsv": "\t"}
_UNPACK = "unpack it, and give the folder or the manifest in it"
_OTHER_FORMATS = {  # endings, and what to do about them
    (".zip", ".7z", ".rar"): _UNPACK,
    (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst"): "decompress it: an uncompressed .tar is read as it is",
    (".xlsx",): "save it as CSV",
    (".arrow", ".feather"): "save it as parquet",
    (".yaml", ".yml"): "save it as JSON",
}


def recognises(path: Path) -> bool:
    """Whether it is a file of no other layout, or a folder with an imagefolder's list in it or one folder below."""
    if not path.is_dir():
        return path.suffix.lower() not in (".tar", ".parquet")
    return any(any(path.glob(pattern)) for name in LISTS for pattern in (name, f"*/{name}"))


def read(path: Path, root: Path | None = None) -> Iterator[Entry | Fault]:
    """The rows of a file or imagefolder; ``root`` is the pictures' folder, where the file doesn't lie in it.

    A line that isn't JSON is a Fault. Raises UserError for a file that can't be read or has no list.
    """
    if path.is_dir():
        path = _listed(path)
    rows, folder = load_rows(path)
    dialect = dialect_of(rows[0]) if rows else None
    files = Files(root or (dialect.folder(path) if dialect and dialect.folder else path.parent / folder))
    for number, row in enumerate(rows):
        yield row if isinstance(row, Fault) else Entry(row, f"{path}, row {number + 1}", str(number), files)


def _listed(folder: Path) -> Path:
    """The list of an imagefolder; of several splits, train's. Raises UserError if there is no train."""
    for place in (folder, folder / "train"):
        for name in LISTS:
            if (place / name).is_file():
                return place / name
    splits = sorted({path.parent.name for name in LISTS for path in folder.glob(f"*/{name}")})
    raise UserError(f"{folder}: holds the splits {', '.join(splits)}, and none is called train", "give one's folder")


def load_rows(path: Path) -> tuple[list[Any], str]:
    """The rows of a file, and the folder it names for its pictures ("": its own).

    A line that isn't JSON is a Fault among the rows. Raises UserError if the file can't be read or has no list.
    """
    with reading(path, "", EOFError, zlib.error, csv.Error):
        text, ending = _text(path)
        if ending in _TABLES:
            return _table(text, path, _TABLES[ending]), ""
        rows = _json(text, path, lines=ending in (".jsonl", ".ndjson"))
    folder = ""
    if isinstance(rows, dict) and "records" in rows:
        rows, folder = rows["records"], rows.get("root") or ""
        if folder and not names_file(folder):
            raise UserError(f"{path}: root must be the folder of the pictures, relative to the file")
    if not isinstance(rows, list):  # the caller refuses an empty one
        raise UserError(f"{path}: holds no rows", "give a list of {prompt, references}")
    return rows, folder


def _text(path: Path) -> tuple[str, str]:
    """The text of a manifest, gunzipped where it is one, and its ending. Raises UserError for a known other format."""
    name = path.name.lower()
    for endings, cure in _OTHER_FORMATS.items():
        if name.endswith(endings):
            raise UserError(f"{path}: this format is not read as a data set", cure)
    content = path.read_bytes()
    if name.endswith(".gz"):
        content, name = gzip.decompress(content), name.removesuffix(".gz")
    return decoded(content), Path(name).suffix


def _json(text: str, path: Path, *, lines: bool) -> Any:
    """A list or an object, or a list of what its ``lines`` hold; a file with the other's ending is read as what it is.

    Raises ValueError.
    """
    if not lines or text.lstrip()[:1] == "[":
        try:
            return parse_json(text)
        except json.JSONDecodeError as error:
            if not lines and error.msg != "Extra data":  # what follows a whole value is the next line
                raise
    numbered = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    return [_line(line, f"{path}, line {number}") for number, line in numbered]


def _line(line: str, where: str) -> Any:
    try:
        return parse_json(line)
    except ValueError as error:
        return Fault(where.rpartition(" ")[2], f"{where}: not JSON ({error}); one row a line")


def _table(text: str, path: Path, delimiter: str) -> list[Any]:
    """Rows of CSV or TSV with a header, without empty cells and those that say in a word that they are empty."""
    rows: list[Any] = []
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    names = [name.strip() for name in reader.fieldnames or ()]
    if twice := [name for name in names if name and names.count(name) > 1]:
        raise UserError(f"{path}: has two columns {twice[0]}", "leave one out")
    reader.fieldnames = names
    for row in reader:
        if None in row:
            rows.append(Fault(str(len(rows)), f"{path}, row {len(rows) + 1}: has more cells than the header"))
            continue
        cells: dict[str, Any] = {key: value for key, value in row.items() if value and value not in _EMPTY}
        lacking = [key for key in row if key not in cells and condition_name(key) == "sure"]
        cells |= dict.fromkeys(lacking)  # an editing set's row without its source
        if cells.get("mask_threshold", "").isdecimal():
            cells["mask_threshold"] = int(cells["mask_threshold"])
        rows.append(cells)
    return rows
