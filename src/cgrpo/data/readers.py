"""Data sets as they lie on disk, read into records: one entry point that recognises the layout.

A file
    .json     a list of rows, or {"records": [rows], "root": folder of the pictures, relative to the file}
    .jsonl    a row a line
    .tar      WebDataset (readers of folders and shards are in folders.py)
A folder
    SynCD's   (syncd_files.py): metadata.json, with scores or without, unpacked or zips
    HF imagefolder: metadata.jsonl whose rows name pictures by file_name
    WebDataset shards: *.tar
    pictures, each with its prompt in a .txt of the same name beside it

Rows are objects as rows.py has them, rows of SynCD's metadata (filenames), or of the release's subset of it (ref_img,
img, text), whose pictures lie in SynCD's folder: give it as ``root``.

Paths are relative to the manifest unless told otherwise; ``file.zip!/member`` leads into an archive.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cgrpo.data.archives import Files
from cgrpo.data.folders import scan_folder, scan_tars
from cgrpo.data.rows import Fault, Rows, load_rows, record_of, scan_rows
from cgrpo.data.syncd_files import is_syncd, scan_syncd, subset_record
from cgrpo.errors import UserError
from cgrpo.types import Record


def read_records(path: Path, root: Path | None = None) -> list[Record]:
    """The records of a file or folder, in its order. ``root``: the pictures' folder, where the file isn't in it.

    Raises UserError naming the first row and field at fault, if there is none, or if the layout isn't known.
    """
    rows = scan_records(path, root)
    for row in rows:
        if isinstance(row, Fault):
            raise UserError(row.message)
    return [row for row in rows if isinstance(row, Record)]


def scan_records(path: Path, root: Path | None = None) -> Rows:
    """As ``read_records``, but a row at fault is a Fault in its place. Raises UserError if nothing can be read."""
    if path.is_dir():
        rows = scan_folder(path)
    elif path.suffix.lower() == ".tar":
        rows = scan_tars([path])
    else:
        rows = _scan_file(path, root)
    if not rows:
        raise UserError(f"manifest {path}: holds no records; give a list of {{prompt, references}}")
    return rows


def _scan_file(path: Path, root: Path | None) -> Rows:
    rows, given = load_rows(path)
    if rows and is_syncd(rows[0]):
        return scan_syncd(path, root)
    files = Files(root or (path.parent / given if given else path.parent))

    def parse(row: Any, name: str) -> Record:
        if isinstance(row, dict) and "ref_img" in row:
            return subset_record(row, f"manifest {path}, {name}", files)
        return record_of(row, name, str(path), files)

    return list(scan_rows(rows, parse))
