"""Tasks from a data set on disk, as batches of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from PIL import Image

from cgrpo.data.archives import open_picture
from cgrpo.data.masks import mask_of
from cgrpo.data.readers import chosen, scan
from cgrpo.data.rows import LeftOut
from cgrpo.errors import UserError
from cgrpo.pictures import Alpha
from cgrpo.types import Batch, Task


class Source(Protocol):
    """Tasks by index. ``size`` None is endless."""

    size: int | None

    def batch(self, indices: Sequence[int]) -> Batch:
        """The tasks at ``indices``, pictures read. Raises UserError naming a broken picture."""
        ...

    def pairs(self, indices: Sequence[int]) -> tuple[Batch, list[Image.Image]]:
        """The tasks with their target pictures, for supervised fine-tuning. Raises UserError where there is none."""
        ...


class ManifestSource:
    """The records of whatever ``read_tasks`` can read; ``alpha`` as in ``pictures.read_picture``.

    ``root`` is the folder that the manifest's paths are relative to, unless it says or is that itself. ``limit``:
    the first so many records, 0 for all. ``left_out`` counts the rows that the set's own quality filter drops.
    """

    def __init__(self, path: Path, alpha: Alpha = "white", root: Path | None = None, limit: int = 0):
        self.path = path
        rows = scan(path, root)
        self.tasks = chosen(rows, path, limit)
        self.left_out = sum(isinstance(row, LeftOut) for row in rows)
        self.size: int | None = len(self.tasks)
        self.alpha: Alpha = alpha

    def batch(self, indices: Sequence[int]) -> Batch:
        records = [self.tasks[index] for index in indices]
        references = tuple(tuple(self._read(path) for path in record.references) for record in records)
        return Batch(
            ids=tuple(record.id for record in records),
            prompts=tuple(record.prompt for record in records),
            references=references,
            subjects=tuple(record.subject for record in records),
            reference_masks=tuple(self._masks(*row) for row in zip(records, references, strict=True)),
            subject_ids=tuple(record.subject_id for record in records),
        )

    def _read(self, path: Path) -> Image.Image:
        return open_picture(path, self.alpha)

    def _masks(self, record: Task, pictures: Sequence[Image.Image]) -> tuple[Image.Image | None, ...]:
        paths = record.masks or (None,) * len(pictures)
        return tuple(
            None if path is None else mask_of(picture, path, record.mask_threshold)
            for path, picture in zip(paths, pictures, strict=True)
        )

    def pairs(self, indices: Sequence[int]) -> tuple[Batch, list[Image.Image]]:
        targets = []
        for record in (self.tasks[index] for index in indices):
            if record.target is None:
                raise UserError(f"record {record.id} has no target picture; supervised fine-tuning needs one for each")
            targets.append(self._read(record.target))
        return self.batch(indices), targets
