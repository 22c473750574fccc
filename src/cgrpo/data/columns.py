"""Parquet files, read piece by piece; the only importer of pyarrow (an extra).

A picture's place is ROW/COLUMN, or ROW/COLUMN/INDEX in a column of lists; rows count from 0 over the whole file.
Columns hold pictures as bytes, as a struct {bytes, path} (Hugging Face's), or by path, relative to the file.

Parquet cannot be entered at a row: a row group has to be decoded up to it. A group of up to 16 MB of pictures is
decoded whole, a larger one in blocks of about that size, in order, going on where the last read stopped. Decoded blocks
are kept while they fit in 64 MB a process; beside them the reader holds a page or two of the file, which may have 1,024
pictures. So reading in order (``data check``, ``data encode``) decodes everything once, but in shuffled order, as in
training, a picture costs half its row group. Measured on a slow core: 2,000 pictures of 8 kB, 0.03 ms each in any
order; 4,000 of 80 kB in groups of 100 rows 0.2 ms in order and 2 to 5 ms shuffled, in groups of 1,000, or all in one,
2 ms and 20 to 25 ms; 8,000 of 120 kB in a single group 15 and 136 ms. Write large sets in groups of about 100 rows.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cgrpo.data.blocks import Store, store_of
from cgrpo.errors import UserError
from cgrpo.text import cure_for, first_bytes

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK_BYTES = 16 << 20  # decoded at a time
ROWS = 1024  # of text, at a time
BUFFER_BYTES = 1 << 20  # read from disk at a time


@dataclass(frozen=True)
class Place:
    """Where a picture is embedded; ``index`` counts within a list."""

    row: int
    column: str
    index: int | None = None

    def __str__(self) -> str:
        return f"{self.row}/{self.column}" + ("" if self.index is None else f"/{self.index}")


Item = Place | str | None  # embedded, or in a file of that name (relative to the parquet file), or not there
Kind = Literal["bytes", "struct", "text", "other"]


@dataclass(frozen=True)
class Column:
    """A column: ``kind`` of its values, or of the items in its lists (``many``); ``fields`` of a struct."""

    kind: Kind
    many: bool
    fields: tuple[str, ...] = ()

    @property
    def holds_pictures(self) -> bool:
        """Whether its values can hardly be anything else: Hugging Face's {bytes, path}."""
        return {"bytes", "path"} <= set(self.fields)


class Table:
    """One parquet file; safe for threads, not to be shared with a forked process (archives.py opens one for each).

    Raises UserError if pyarrow is missing or the file can't be read; every method does for a damaged file.
    """

    def __init__(self, path: Path):
        self.path, self._lock = path, threading.Lock()
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            cure = "pip install pyarrow"
            raise UserError(
                f"{path}: the package pyarrow, which reads parquet files, is not installed: {cure}"
            ) from None
        self._broken = (OSError, pyarrow.ArrowException, ValueError)
        try:
            self._file = pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER_BYTES)
            schema = self._file.schema_arrow
        except self._broken as error:
            cure = cure_for(first_bytes(path), "fetch it anew")
            raise UserError(f"{path}: can't be read as parquet ({_line(error)}); {cure}") from error
        self.columns = {field.name: _column(field.type) for field in schema}
        if twice := [name for name in self.columns if schema.names.count(name) > 1]:
            raise UserError(f"{path}: has two columns {twice[0]}; leave one out")
        metadata = self._file.metadata
        groups = range(metadata.num_row_groups)
        self._leaves: dict[str, list[int]] = {}
        for leaf in range(metadata.num_columns):
            name = metadata.schema.column(leaf).path.partition(".")[0]
            self._leaves.setdefault(name, []).append(leaf)
        self._starts = [0]
        for group in groups:
            self._starts.append(self._starts[-1] + metadata.row_group(group).num_rows)

    def __len__(self) -> int:
        return self._starts[-1]

    def rows(self, values: Sequence[str], pictures: Sequence[str]) -> Iterator[dict[str, Any]]:
        """The rows in order: of ``values`` the values (None where Python has no such
        text or date), of ``pictures`` their Items.

        Pictures' bytes are not read unless there is no other way to tell which rows have one: in columns without
        a path where the file does not say that all rows do, and in lists of plain bytes.
        """
        for group in range(len(self._starts) - 1):
            found: dict[str, list[Any]] = {name: [] for name in (*values, *pictures)}
            for name in values:
                for array in self._arrays(group, [name], ROWS):
                    found[name] += _values(array)
            for name in pictures:
                found[name] += self._items(group, name)
            for number in range(self._starts[group + 1] - self._starts[group]):
                yield {name: column[number] for name, column in found.items()}

    def _items(self, group: int, name: str) -> list[Any]:
        """An Item for each row of a row group; a list of them in a column of lists."""
        column, first = self.columns[name], self._starts[group]
        count = self._starts[group + 1] - first
        if column.kind == "text":
            return [item for array in self._arrays(group, [name], ROWS) for item in _values(array)]
        nulls = self._null_count(group, name)
        leaves, by_path = [name], False
        if column.kind == "struct" and "path" in column.fields:
            leaves = [leaf for leaf in self._leaf_paths(name) if leaf.endswith(".path")]
            by_path = "bytes" not in column.fields or nulls == "all"
        elif not column.many and nulls == "none":
            return [Place(first + number, name) for number in range(count)]
        found: list[Any] = []
        for array in self._arrays(group, leaves, self._block_rows(group, name) if leaves == [name] else ROWS):
            for there in _presence(array, column.many, by_path):
                row = first + len(found)
                if isinstance(there, list):
                    found.append([Place(row, name, at) if item is True else item for at, item in enumerate(there)])
                else:
                    found.append(Place(row, name) if there is True else there)
        return found

    def find(self, place: Place) -> bytes | Path | None:
        """The picture at ``place``: its bytes, or its file, or None if there is neither."""
        column = self.columns.get(place.column)
        if column is None or column.kind == "other" or not 0 <= place.row < len(self):
            return None
        if column.many != (place.index is not None):
            return None
        block, first = self._block(place)
        try:
            cell = block[place.row - first]
            if place.index is not None:
                cell = cell[place.index] if cell.is_valid and 0 <= place.index < len(cell) else None
            value = None if cell is None else cell.as_py()
        except self._broken as error:
            raise UserError(f"{self.path}!/{place}: can't be read ({_line(error)}); fetch the file anew") from error
        if isinstance(value, dict):
            value = value.get("path") if value.get("bytes") is None else value["bytes"]
        return self.path.parent / value if isinstance(value, str) and value else value or None

    def _block(self, place: Place) -> tuple[pa.ChunkedArray, int]:
        """The decoded block with ``place``'s row, and its first row."""
        group = bisect_right(self._starts, place.row) - 1
        size, start = self._block_rows(group, place.column), self._starts[group]
        wanted = start + (place.row - start) // size * size
        store: Store[pa.ChunkedArray, Cursor] = store_of(os.getpid())
        with self._lock:
            block = store.block(self, place.column, wanted)
            if block is not None:
                return block, wanted
            cursor = store.take(self, place.column)
            if cursor is None or cursor.group != group or cursor.row > wanted:
                cursor = Cursor(group, start, self._arrays(group, [place.column], size))
            end = self._starts[group + 1]
            for first in range(cursor.row, wanted + 1, size):
                block = cursor.read(min(size, end - first))
                store.keep(self, place.column, first, block)
            assert block is not None  # cursor.row is at most wanted, and size rows lie between two blocks
            if cursor.row < end:
                store.put_back(self, place.column, cursor)
            return block, wanted

    def _arrays(self, group: int, leaves: list[str], size: int) -> Iterator[pa.Array]:
        """Of a row group: one column (or some of its leaves), ``size`` rows or fewer at a time."""
        try:
            for batch in self._file.iter_batches(size, row_groups=[group], columns=leaves, use_threads=False):
                yield batch.column(0)
        except self._broken as error:
            name, rows = leaves[0].partition(".")[0], f"rows {self._starts[group]} to {self._starts[group + 1] - 1}"
            raise UserError(f"{self.path}, {name}: {rows} can't be read ({_line(error)}); fetch it anew") from error

    def _block_rows(self, group: int, name: str) -> int:
        count = self._starts[group + 1] - self._starts[group]
        described = self._file.metadata.row_group(group)
        size = sum(described.column(leaf).total_uncompressed_size for leaf in self._leaves[name])
        return max(1, count if size <= BLOCK_BYTES else count * BLOCK_BYTES // size)

    def _leaf_paths(self, name: str) -> list[str]:
        return [self._file.metadata.schema.column(leaf).path for leaf in self._leaves[name]]

    def _null_count(self, group: int, name: str) -> Literal["none", "all", "unknown"]:
        """What the file says of nulls in a column's only leaf, or its bytes."""
        described = self._file.metadata.row_group(group)
        for leaf, path in zip(self._leaves[name], self._leaf_paths(name), strict=True):
            if len(self._leaves[name]) == 1 or path.endswith(".bytes"):
                chunk = described.column(leaf)
                if chunk.statistics is None or not chunk.statistics.has_null_count:
                    return "unknown"
                nulls = chunk.statistics.null_count
                return "none" if nulls == 0 else "all" if nulls == chunk.num_values else "unknown"
        return "unknown"


@dataclass
class Cursor:
    """A row group being read: ``row`` comes next."""

    group: int
    row: int
    arrays: Iterator[pa.Array]

    def read(self, count: int) -> pa.ChunkedArray:
        """The next ``count`` rows, which there must be; they may come in several pieces."""
        import pyarrow

        parts = []
        while count > 0:
            parts.append(next(self.arrays))
            count -= len(parts[-1])
            self.row += len(parts[-1])
        return pyarrow.chunked_array(parts)


def _column(kind: pa.DataType) -> Column:
    from pyarrow import types

    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        inner = _column(kind.value_type)
        return Column("other" if inner.many else inner.kind, True, inner.fields)
    if types.is_dictionary(kind):
        return _column(kind.value_type)
    if types.is_struct(kind):
        fields = tuple(field.name for field in kind)
        return Column("struct" if {"bytes", "path"} & set(fields) else "other", False, fields)
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return Column("text", False)
    binary = types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)
    return Column("bytes" if binary else "other", False)


def _values(array: pa.Array) -> list[Any]:
    try:
        return array.to_pylist()
    except (ValueError, OverflowError):  # of one row: no UTF-8, a date before or after all calendars; which one?
        return [_value(scalar) for scalar in array]


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError):
        return None


def _presence(array: pa.Array, many: bool, by_path: bool) -> Iterator[Any]:
    """Of each row: is there a picture (None: no), or where it is a file's its name; a list of these for lists."""
    from pyarrow import compute

    flat = array.flatten() if many else array
    if by_path:
        items = [item and item["path"] for item in _values(flat)]
    else:
        items = [there or None for there in flat.is_valid().to_pylist()]
    if not many:
        yield from items
        return
    start = 0
    for length in compute.call_function("list_value_length", [array]).to_pylist():
        yield None if length is None else items[start : start + length]
        start += length or 0


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
