"""Rows of parquet files, as Hugging Face publishes data sets; pictures stay where they are.

Columns are called as the fields of tasks.py are; ``references`` (or images, image, ...) and ``masks`` hold one picture
or a list of them, ``target`` one. Pictures are embedded or named by path (columns.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cgrpo.data.archives import Files, table, within
from cgrpo.data.columns import Place, Table
from cgrpo.data.dialects import SUBJECTS200K_VALUES, is_subjects200k, translate_subjects200k
from cgrpo.data.parts import each_file, for_training
from cgrpo.data.tasks import (
    IMAGES,
    PICTURES,
    REFERENCES,
    SINGLE,
    TARGETS,
    VALUES,
    Entry,
    Fault,
    LeftOut,
    id_of,
    is_address,
    plain,
)
from cgrpo.errors import UserError


def recognises(path: Path) -> bool:
    """Whether it is a parquet file, or a folder with some in it or in its data/."""
    return bool(_files(path)) if path.is_dir() else path.suffix.lower() == ".parquet"


def read(path: Path, root: Path | None = None) -> Iterator[Entry | Fault | LeftOut]:
    """The rows of a file, or of a folder's training files, in order; names of pictures are relative to their file.

    Ids are the rows' own, or the row's number, of several files FILE/NUMBER. Raises UserError if no file can be read,
    and if there are several splits, but no train.
    """
    files = for_training(_files(path), path) if path.is_dir() else [path]
    several = len(files) > 1
    yield from each_file(files, lambda file: _rows(file, f"{file.stem}/" if several else ""))


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("[!.]*.parquet")) or sorted(folder.glob("data/[!.]*.parquet"))


def _rows(file: Path, prefix: str) -> Iterator[Entry | LeftOut]:
    opened, files = table(file), Files(None)
    description = opened.columns.get("description")
    composites = is_subjects200k(opened.columns, description.fields if description else ())
    values = SUBJECTS200K_VALUES if composites else VALUES
    pictures = ["image"] if composites else _picture_columns(opened)
    for number, row in enumerate(opened.rows([name for name in values if name in opened.columns], pictures)):
        row["id"] = id_of(row) or f"{prefix}{number}"
        if composites:
            row["image"] = row["image"] and str(within(file, f"{number}/image"))
            fields = translate_subjects200k(row)
        else:
            fields = _with_paths(file, row, pictures)
        yield fields if isinstance(fields, LeftOut) else Entry(fields, f"{file}, row {number}", row["id"], files)


def _picture_columns(opened: Table) -> list[str]:
    """The columns of pictures that tasks.py knows. Raises UserError if none of them can be a reference."""
    columns = opened.columns
    known = [name for name, column in columns.items() if plain(name) in PICTURES and column.holds != "other"]
    if not any(plain(name) in (*REFERENCES, *IMAGES) for name in known):
        cure = "call it references, or image"
        raise UserError(f"{opened.path}: no column of pictures among {', '.join(columns)}", cure)
    if not any(plain(name) in (*REFERENCES, *TARGETS) for name in known):
        image = next(name for name in known if plain(name) in IMAGES)
        others = [name for name in columns if name not in known and {"bytes", "path"} <= set(columns[name].fields)]
        if others:
            raise UserError(
                f"{opened.path}: {image} and {others[0]} both hold pictures, and nothing says which are the references",
                "call that column references, and the other target if that is what it holds",
            )
    return known


def _with_paths(file: Path, row: dict[str, Any], pictures: list[str]) -> dict[str, Any]:
    """The row with paths in the place of its cells of pictures."""

    def path(cell: Any) -> str | None:
        if isinstance(cell, Place):
            return str(within(file, str(cell)))
        return cell if not cell or is_address(cell) else str(file.parent / cell)

    for key in pictures:
        cells = row[key]
        row[key] = [path(cell) for cell in cells] if isinstance(cells, list) else path(cells)
        if isinstance(row[key], str) and plain(key) in (*REFERENCES, *IMAGES) and plain(key) not in SINGLE:
            row[key] = [row[key]]
    return row
