"""Rows of parquet files, as Hugging Face publishes data sets, read into records; pictures stay where they are.

Columns are called as the fields of fields.py are; ``references`` (or images, image, ...) and ``masks`` hold one picture
or a list of them, ``target`` one. Pictures are embedded or named by path (columns.py). Composites (composites.py) are
told by their columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cgrpo.data.archives import Files, table, within
from cgrpo.data.columns import Item, Place, Table
from cgrpo.data.composites import fields, is_composite, left_out
from cgrpo.data.fields import (
    IMAGE_KEYS,
    PICTURE_KEYS,
    REFERENCE_KEYS,
    SINGLE,
    TARGET_KEYS,
    VALUE_KEYS,
    id_of,
    is_address,
    plain,
    record_of,
)
from cgrpo.data.rows import Fault, LeftOut, Rows, scan_files
from cgrpo.data.splits import for_training
from cgrpo.errors import UserError
from cgrpo.types import Task

COMPOSITE_VALUES = ("id", "description", "quality_assessment", "collection")


def parquet_files(folder: Path) -> list[Path]:
    """The parquet files of a folder, or else of its data/, sorted; of several splits only those of train.

    Raises UserError if there are several splits, but no train."""
    found = sorted(folder.glob("[!.]*.parquet")) or sorted(folder.glob("data/[!.]*.parquet"))
    return for_training(found, folder)


def scan_parquets(files: list[Path]) -> Rows:
    """The records of parquet files, in order. Ids are the rows' own, or the row's number, of several files
    FILE/NUMBER. Raises UserError if no file can be read."""
    several = len(files) > 1
    return scan_files(files, lambda file: _scan(file, f"{file.stem}/" if several else ""))


def _scan(file: Path, prefix: str) -> Iterator[Task | Fault | LeftOut]:
    opened, files = table(file), Files(None)
    described = opened.columns.get("description")
    composites = is_composite(opened.columns, described.fields if described else ())
    values = COMPOSITE_VALUES if composites else VALUE_KEYS
    pictures = ["image"] if composites else _pictures(opened)
    for number, row in enumerate(opened.rows([name for name in values if name in opened.columns], pictures)):
        row["id"] = id_of(row) or f"{prefix}{number}"
        reason = left_out(row) if composites else None
        if reason is not None:
            yield LeftOut(row["id"], reason)
            continue
        given = _composite(file, number, row) if composites else _named(file, row, pictures)
        try:
            yield record_of(given, f"row {number}", str(file), files)
        except UserError as error:
            yield Fault(row["id"], str(error))


def _pictures(opened: Table) -> list[str]:
    """The columns of pictures that fields.py knows. Raises UserError if none of them can be a reference."""
    known = [name for name, column in opened.columns.items() if plain(name) in PICTURE_KEYS and column.kind != "other"]
    if not any(plain(name) in (*REFERENCE_KEYS, *IMAGE_KEYS) for name in known):
        raise UserError(
            f"{opened.path}: no column of pictures among {', '.join(opened.columns)}; call it references, or image"
        )
    if not any(plain(name) in (*REFERENCE_KEYS, *TARGET_KEYS) for name in known):
        shown = next(name for name in known if plain(name) in IMAGE_KEYS)
        others = [name for name in opened.columns if name not in known and opened.columns[name].holds_pictures]
        if others:
            raise UserError(
                f"{opened.path}: pictures stand in {shown} and in {others[0]}, and it is not said which are the "
                "references; call that column references, and the other target if that is what it holds"
            )
    return known


def _named(file: Path, row: dict[str, Any], pictures: list[str]) -> dict[str, Any]:
    """The row as a manifest would have it, with paths for pictures."""

    def name(item: Item) -> str | None:
        if isinstance(item, Place):
            return str(within(file, str(item)))
        return item if not item or is_address(item) else str(file.parent / item)

    for key in pictures:
        items = row[key]
        row[key] = [name(item) for item in items] if isinstance(items, list) else name(items)
        if isinstance(row[key], str) and plain(key) in (*REFERENCE_KEYS, *IMAGE_KEYS) and plain(key) not in SINGLE:
            row[key] = [row[key]]
    return row


def _composite(file: Path, number: int, row: dict[str, Any]) -> dict[str, Any]:
    """The row of a composite as a manifest would have it."""
    left, right = (str(within(file, f"{number}/image/{side}")) for side in ("left", "right"))
    there = row["image"] is not None
    return {"id": row["id"], **fields(row, left if there else None, right if there else None)}
