"""Data sets as they lie on disk, read into records: one entry point that recognises the layout.

A file
    .json     a list of rows, or {"records": [rows], "root": folder of the pictures, relative to the file}
    .jsonl    a row a line
    .csv      a header, and a row a line
    .tar      WebDataset (shards.py; readers of folders are in folders.py)
    .parquet  rows with their pictures (parquet.py), or composites (composites.py)
A folder
    SynCD's   (syncd_files.py): metadata.json, with scores or without, unpacked or zips
    HF imagefolder: metadata.jsonl or metadata.csv whose rows name pictures by file_name, here or in train/
    WebDataset shards: *.tar
    parquet shards: *.parquet, here or in data/
    pictures, each with its prompt in a .txt of the same name beside it

Rows are objects as fields.py has them, rows of SynCD's metadata (filenames), of UNO-1M's labels (uno.py), or of the
release's subset of SynCD (ref_img, img, text), whose pictures lie in SynCD's folder: give it as ``root``.

Paths are relative to the manifest unless told otherwise; ``file.zip!/member`` leads into an archive.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cgrpo.data.archives import Files
from cgrpo.data.fields import record_of
from cgrpo.data.folders import scan_folder, scan_tars
from cgrpo.data.parquet import scan_parquets
from cgrpo.data.rows import Fault, LeftOut, Rows, load_rows, scan_rows
from cgrpo.data.syncd_files import is_syncd, scan_syncd, subset_record
from cgrpo.data.uno import is_uno_label, pictures_folder, uno_record
from cgrpo.errors import UserError
from cgrpo.types import Task


def read_tasks(path: Path, root: Path | None = None, limit: int = 0) -> list[Task]:
    """The records of a file or folder, in its order. ``root``: the pictures' folder, where the file isn't in it.

    ``limit``: the first so many, 0 for all. Rows that the set's own quality filter leaves out don't count.
    Raises UserError naming the first row and field at fault, if there is none, or if the layout isn't known.
    """
    return chosen(scan(path, root), path, limit)


def chosen(rows: Rows, path: Path, limit: int) -> list[Task]:
    """As ``read_tasks``, from the rows of ``path``."""
    records: list[Task] = []
    for row in rows:
        if isinstance(row, Fault):
            raise UserError(row.message)
        if isinstance(row, Task):
            records.append(row)
        if limit and len(records) == limit:
            break
    if not records:
        raise UserError(f"{path}: the set's own quality filter leaves out all {len(rows)} rows; see docs/data.md")
    return records


def scan(path: Path, root: Path | None = None) -> Rows:
    """All rows: a row at fault is a Fault in its place, one that the set's own quality filter drops a LeftOut.

    Raises UserError if nothing can be read.
    """
    if not path.exists():
        raise UserError(f'{path}: no such file; data.source is a file or folder of docs/data.md, or "toybox"')
    if path.is_dir():
        rows = scan_folder(path)
    elif path.suffix.lower() == ".tar":
        rows = scan_tars([path])
    elif path.suffix.lower() == ".parquet":
        rows = scan_parquets([path])
    else:
        rows = _scan_file(path, root)
    if not rows:
        raise UserError(f"manifest {path}: holds no records; give a list of {{prompt, references}}")
    return rows


def _scan_file(path: Path, root: Path | None) -> Rows:
    rows, given = load_rows(path)
    if rows and is_syncd(rows[0]):
        return scan_syncd(path, root)
    labels = bool(rows) and is_uno_label(rows[0])
    files = Files(root or (pictures_folder(path) if labels else path.parent / given if given else path.parent))

    def parse(row: Any, name: str) -> Task | LeftOut:
        if isinstance(row, dict) and "ref_img" in row:
            return subset_record(row, f"manifest {path}, {name}", files)
        if is_uno_label(row):
            return uno_record(row, name, str(path), files)
        return record_of(row, name, str(path), files)

    return list(scan_rows(rows, parse))
