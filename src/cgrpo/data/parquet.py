"""Rows of parquet files, as Hugging Face publishes data sets; pictures stay where they are.

Columns are called as the fields of tasks.py are; ``references`` (or images, image, ...) and ``masks`` hold one picture
or a list of them, ``target`` one. Pictures are embedded or named by path (columns.py). Next to a lone image, all other
columns that could hold pictures are read as well, so that tasks.py can refuse rows that don't say which is which.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cgrpo.data.archives import Files, table, within
from cgrpo.data.benchmarks import OMNICONTEXT
from cgrpo.data.columns import Place, Table
from cgrpo.data.dialects import SUBJECTS200K_VALUES, is_subjects200k, translate_subjects200k
from cgrpo.data.fields import IMAGES, PICTURES, REFERENCES, TARGETS, VALUES, common_name, condition_name
from cgrpo.data.parts import each_file, for_training
from cgrpo.data.tasks import Entry, Fault, LeftOut, id_of
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
    opened, files = table(file), Files(file.parent)
    description = opened.columns.get("description")
    composites = is_subjects200k(opened.columns, description.fields if description else ())
    values = SUBJECTS200K_VALUES if composites else VALUES
    values += OMNICONTEXT if {*OMNICONTEXT} <= opened.columns.keys() else ()
    pictures = ["image"] if composites else _picture_columns(opened)
    for number, row in enumerate(opened.rows([name for name in values if name in opened.columns], pictures)):
        row["id"] = id_of(row) or f"{prefix}{number}"
        if composites:
            fields = translate_subjects200k(row | {"image": row["image"] and _name(file, row["image"])})
        else:
            fields = row | {key: _name(file, row[key]) for key in pictures}
        yield fields if isinstance(fields, LeftOut) else Entry(fields, f"{file}, row {number + 1}", row["id"], files)


def _picture_columns(opened: Table) -> list[str]:
    """The columns of pictures that tasks.py knows. Raises UserError if none of them can be a reference."""
    columns = opened.columns
    named = {name: common_name(name) for name, column in columns.items() if column.holds != "other"}
    named = {name: common for name, common in named.items() if common in PICTURES}
    if not {*named.values()} & {*REFERENCES, *IMAGES}:
        cure = "call it references, or image"
        raise UserError(f"{opened.path}: no column of pictures among {', '.join(columns)}", cure)
    if {*named.values()} & {*REFERENCES, *TARGETS}:
        return list(named)
    image = next(name for name in named if named[name] in IMAGES)
    others = [name for name in columns if name not in named and name not in VALUES]
    if unread := [name for name in others if columns[name].binary]:
        raise UserError(
            f"{opened.path}: {image} and {unread[0]} both hold pictures, and nothing says which are the references",
            "call that column references, and the other target if that is what it holds",
        )
    return [*named, *(name for name in others if columns[name].holds == "text" or condition_name(name) == "sure")]


def _name(file: Path, cell: Any) -> Any:
    """The name of a cell's picture, or of each in a list, relative to the folder of the file."""
    if isinstance(cell, list):
        return [_name(file, item) for item in cell]
    return str(within(Path(file.name), str(cell))) if isinstance(cell, Place) else cell
