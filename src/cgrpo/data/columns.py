"""Parquet files, read piece by piece; the only importer of pyarrow (an extra).

A picture's place is ROW/COLUMN, or ROW/COLUMN/INDEX in a column of lists; rows count from 0 over the whole file.
Columns hold pictures as bytes, as a struct {bytes, path} (Hugging Face's), or by path, relative to the file.

Parquet can't be entered at a row: a row group is decoded up to it. A group of up to 16 MB of pictures is decoded whole,
a larger one in blocks of about that size, in order, continuing where the last read stopped. Each process keeps 64 MB of
decoded blocks, and a page or two of each file being read. Reading in order decodes everything once; in shuffled order,
as in training, a picture costs half its row group. docs/reference/data.md has measurements;
groups of about 100 rows serve best.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cgrpo.data.cache import cache_of
from cgrpo.errors import UserError
from cgrpo.files import reading

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK_BYTES = 16 << 20  # decoded at a time
TEXT_ROWS = 1024  # rows of text read at a time
BUFFER_BYTES = 1 << 20  # read from disk at a time


@dataclass(frozen=True)
class Place:
    """Where a picture is embedded; ``index`` counts within a list."""

    row: int
    column: str
    index: int | None = None

    def __str__(self) -> str:
        return f"{self.row}/{self.column}" + ("" if self.index is None else f"/{self.index}")


Cell = Place | str | None  # a picture: embedded, in a file of that name (relative to the parquet file), or absent


@dataclass(frozen=True)
class Column:
    """A column: ``holds`` what its values are, or the items of its lists (``many``); ``fields`` of a struct.

    ``binary``: there are bytes in it, at whatever depth.
    """

    holds: Literal["bytes", "struct", "text", "other"]
    many: bool = False
    fields: tuple[str, ...] = ()
    binary: bool = False


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
            raise UserError(f"{path}: parquet files need the package pyarrow", "pip install pyarrow") from None
        self._damage = pyarrow.ArrowException
        with reading(path, "fetch it anew", self._damage):
            self._file = pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER_BYTES)
            schema = self._file.schema_arrow
        self.columns = {field.name: _column(field.type) for field in schema}
        if twice := [name for name in self.columns if schema.names.count(name) > 1]:
            raise UserError(f"{path}: has two columns {twice[0]}", "leave one out")
        metadata = self._file.metadata
        self._leaves: dict[str, list[tuple[int, str]]] = {}
        for leaf in range(metadata.num_columns):
            path_of_leaf = metadata.schema.column(leaf).path
            self._leaves.setdefault(path_of_leaf.partition(".")[0], []).append((leaf, path_of_leaf))
        self._starts = [0]
        for group in range(metadata.num_row_groups):
            self._starts.append(self._starts[-1] + metadata.row_group(group).num_rows)

    def __len__(self) -> int:
        return self._starts[-1]

    def rows(self, values: Sequence[str], pictures: Sequence[str]) -> Iterator[dict[str, Any]]:
        """The rows in order: of the columns ``values`` the values, of ``pictures`` a Cell, or a list of them.

        A text or date that Python can't hold is None. Pictures' bytes are read only where nothing else tells which
        rows have one: in columns without a path whose file doesn't count nulls, and in lists of plain bytes.
        """
        for group in range(len(self._starts) - 1):
            read = {name: self._texts(group, name) for name in values}
            read |= {name: self._cells(group, name) for name in pictures}
            for number in range(self._starts[group + 1] - self._starts[group]):
                yield {name: column[number] for name, column in read.items()}

    def _texts(self, group: int, name: str) -> list[Any]:
        return [value for array in self._arrays(group, [name], TEXT_ROWS) for value in _values(array)]

    def _cells(self, group: int, name: str) -> list[Any]:
        """A Cell for each row of a row group; a list of them in a column of lists."""
        column, first = self.columns[name], self._starts[group]
        if column.holds == "text":
            return self._texts(group, name)
        nulls = self._nulls(group, name)
        leaves, rows, by_path = [name], self._block_rows(group, name), False
        if "path" in column.fields:
            leaves = [leaf for _, leaf in self._leaves[name] if leaf.endswith(".path")]
            rows, by_path = TEXT_ROWS, "bytes" not in column.fields or nulls == "all"
        elif not column.many and nulls == "none":
            return [Place(row, name) for row in range(first, self._starts[group + 1])]
        cells: list[Any] = []
        for array in self._arrays(group, leaves, rows):
            for cell in _presence(array, column.many, by_path):
                row = first + len(cells)
                if isinstance(cell, list):
                    cells.append([Place(row, name, at) if item is True else item for at, item in enumerate(cell)])
                else:
                    cells.append(Place(row, name) if cell is True else cell)
        return cells

    def find(self, place: Place) -> bytes | Path | None:
        """The picture at ``place``: its bytes, or its file, or None if there is neither."""
        column = self.columns.get(place.column)
        if column is None or column.holds == "other" or not 0 <= place.row < len(self):
            return None
        if column.many != (place.index is not None):
            return None
        block, first = self._block(place)
        with reading(f"{self.path}!/{place}", "fetch the file anew", self._damage):
            cell = block[place.row - first]
            if place.index is not None:
                cell = cell[place.index] if cell.is_valid and 0 <= place.index < len(cell) else None
            value = None if cell is None else cell.as_py()
        if isinstance(value, dict):
            value = value.get("path") if value.get("bytes") is None else value["bytes"]
        return self.path.parent / value if isinstance(value, str) and value else value or None

    def _block(self, place: Place) -> tuple[pa.ChunkedArray, int]:
        """The decoded block with ``place``'s row, and its first row."""
        group = bisect_right(self._starts, place.row) - 1
        size, start, end = self._block_rows(group, place.column), self._starts[group], self._starts[group + 1]
        wanted = start + (place.row - start) // size * size
        cache, key = cache_of(os.getpid()), (self, place.column)
        with self._lock:
            block = cache.block((*key, wanted))
            if block is not None:
                return block, wanted
            cursor = cache.take(key)
            if cursor is None or cursor.group != group or cursor.row > wanted:
                cursor = _Cursor(group, start, self._arrays(group, [place.column], size))
            for first in range(cursor.row, wanted + 1, size):
                block = cursor.read(min(size, end - first))
                cache.keep((*key, first), block)
            assert block is not None  # cursor.row is at most wanted, and size rows lie between two blocks
            if cursor.row < end:
                cache.put_back(key, cursor)
            return block, wanted

    def _arrays(self, group: int, leaves: list[str], size: int) -> Iterator[pa.Array]:
        """Of a row group: one column (or some of its leaves), ``size`` rows or fewer at a time."""
        name = leaves[0].partition(".")[0]
        rows = f"rows {self._starts[group]} to {self._starts[group + 1] - 1}"
        with reading(f"{self.path}, {name}, {rows}", "fetch the file anew", self._damage):
            for batch in self._file.iter_batches(size, row_groups=[group], columns=leaves, use_threads=False):
                yield batch.column(0)

    def _block_rows(self, group: int, name: str) -> int:
        count = self._starts[group + 1] - self._starts[group]
        described = self._file.metadata.row_group(group)
        size = sum(described.column(leaf).total_uncompressed_size for leaf, _ in self._leaves[name])
        return max(1, count if size <= BLOCK_BYTES else count * BLOCK_BYTES // size)

    def _nulls(self, group: int, name: str) -> Literal["none", "all", "unknown"]:
        """How many nulls the file counts in a column's only leaf, or its bytes."""
        leaves = self._leaves[name]
        counted = next((leaf for leaf, path in leaves if len(leaves) == 1 or path.endswith(".bytes")), None)
        chunk = None if counted is None else self._file.metadata.row_group(group).column(counted)
        if chunk is None or chunk.statistics is None or not chunk.statistics.has_null_count:
            return "unknown"
        nulls = chunk.statistics.null_count
        return "none" if nulls == 0 else "all" if nulls == chunk.num_values else "unknown"


@dataclass
class _Cursor:
    """A row group being read: ``row`` comes next."""

    group: int
    row: int
    arrays: Iterator[pa.Array]

    def read(self, count: int) -> pa.ChunkedArray:
        """The next ``count`` rows, which must exist; they may come in several pieces."""
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
        return Column("other" if inner.many else inner.holds, True, inner.fields, inner.binary)
    if types.is_dictionary(kind):
        return _column(kind.value_type)
    if types.is_struct(kind):
        fields = tuple(field.name for field in kind)
        binary = any(_column(field.type).binary for field in kind)
        return Column("struct" if {"bytes", "path"} & set(fields) else "other", False, fields, binary)
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return Column("text")
    binary = types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)
    return Column("bytes" if binary else "other", binary=binary)


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
    """For each row: True for a picture, its file's name if ``by_path``, None for none; a list of these for lists."""
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
