"""Preference pairs: for a task, a picture that is preferred and one that is not.

JSON lines, a pair a line: a row as manifests have it (fields.py), and

    winner, loser   pictures relative to the file; any sizes

What else a row has is carried by nobody. ``cgrpo train`` writes such a file where it makes pairs itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL.Image import Image

from cgrpo.data.archives import Files
from cgrpo.data.fields import names_file, record_of, refuse_address
from cgrpo.data.records import ManifestSource
from cgrpo.data.rows import Fault, load_rows
from cgrpo.errors import UserError
from cgrpo.pictures import Alpha
from cgrpo.types import Batch, Task


class PairSource(ManifestSource):
    """The pairs of a file; their tasks as batches, like any data set's.

    ``records`` have the winners as targets, ``losing`` the losers. ``limit``: the first so many, 0 for all. Raises
    UserError naming the first row at fault, and where there is none.
    """

    def __init__(self, path: Path, alpha: Alpha = "white", limit: int = 0):
        self.alpha: Alpha = alpha
        self.left_out = 0
        self.tasks, self.losing = _read_pairs(path, limit)
        self.size: int | None = len(self.tasks)

    def preferences(self, indices: Sequence[int]) -> tuple[Batch, list[Image], list[Image]]:
        """The tasks at ``indices``, their winners and their losers, RGB. Raises UserError naming a broken picture."""
        winners, losers = (
            [self._read(record.target).convert("RGB") for i in indices if (record := records[i]).target is not None]
            for records in (self.tasks, self.losing)
        )
        return self.batch(indices), winners, losers


def _read_pairs(path: Path, limit: int) -> tuple[list[Task], list[Task]]:
    if not path.is_file():
        raise UserError(f"{path}: no such file; preference.pairs is a file of JSON lines (docs/data.md)")
    rows, _ = load_rows(path)
    files, records, losing = Files(path.parent), [], []
    for number, row in enumerate(rows[: limit or None]):
        if isinstance(row, Fault):
            raise UserError(row.message)
        record = record_of(row, f"record {number}", str(path), files)
        for name in ("winner", "loser"):
            if not names_file(row.get(name)):
                raise UserError(f"manifest {path}, record {number}: {name} must be a picture file")
            refuse_address(row[name], f"manifest {path}, record {number}")
        if files.path(row["winner"]) == files.path(row["loser"]):
            raise UserError(f"manifest {path}, record {number}: winner and loser are one picture; leave the pair out")
        records.append(replace(record, target=files.path(row["winner"])))
        losing.append(replace(record, target=files.path(row["loser"])))
    if not records:
        raise UserError(f"{path}: holds no pairs; give a line for each, with prompt, references, winner and loser")
    return records, losing
