"""Tasks as batches of pictures: of a data set on disk, and of preference pairs; the toy worlds' are in worlds.py."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from PIL import Image

from cgrpo.data import manifests
from cgrpo.data.archives import open_picture
from cgrpo.data.dialects import translated
from cgrpo.data.fields import names_file, refuse_address
from cgrpo.data.masks import mask_of
from cgrpo.data.readers import chosen, scan
from cgrpo.data.tasks import Entry, Fault, LeftOut, task_of
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
    """The tasks of whatever ``read_tasks`` can read; ``alpha`` as in ``pictures.read_picture``.

    ``root`` is the folder that the manifest's paths are relative to, unless it says or is that itself. ``limit``:
    the first so many tasks, 0 for all. ``left_out`` counts the rows that the set's own quality filter drops.
    """

    def __init__(self, path: Path, alpha: Alpha = "white", root: Path | None = None, limit: int = 0):
        rows = scan(path, root)
        self.path, self.tasks = path, chosen(rows, path, limit)
        self.left_out = sum(isinstance(row, LeftOut) for row in rows)
        self.size: int | None = len(self.tasks)
        self.alpha: Alpha = alpha

    def batch(self, indices: Sequence[int]) -> Batch:
        tasks = [self.tasks[index] for index in indices]
        references = tuple(tuple(self._read(path) for path in task.references) for task in tasks)
        return Batch(
            ids=tuple(task.id for task in tasks),
            prompts=tuple(task.prompt for task in tasks),
            references=references,
            subjects=tuple(task.subject for task in tasks),
            reference_masks=tuple(_masks(*row) for row in zip(tasks, references, strict=True)),
            subject_ids=tuple(task.subject_id for task in tasks),
            phrases=tuple(task.phrases for task in tasks) if any(task.phrases for task in tasks) else None,
        )

    def _read(self, path: Path) -> Image.Image:
        return open_picture(path, self.alpha)

    def pairs(self, indices: Sequence[int]) -> tuple[Batch, list[Image.Image]]:
        targets = []
        for task in (self.tasks[index] for index in indices):
            if task.target is None:
                raise UserError(f"task {task.id} has no target picture; supervised fine-tuning needs one for each")
            targets.append(self._read(task.target))
        return self.batch(indices), targets


def _masks(task: Task, pictures: Sequence[Image.Image]) -> tuple[Image.Image | None, ...]:
    paths = task.masks or (None,) * len(pictures)
    return tuple(
        None if path is None else mask_of(picture, path, task.mask_threshold)
        for path, picture in zip(paths, pictures, strict=True)
    )


class PairSource(ManifestSource):
    """Preference pairs: for a task, a picture that is preferred and one that is not.

    A file of JSON lines, a pair a line: a row as manifests have it (tasks.py), and ``winner`` and ``loser``, pictures
    relative to the file, of any sizes. ``cgrpo train`` writes such a file where it makes pairs itself.

    ``tasks`` have the winners as targets, ``losing`` the losers. ``limit``: the first so many, 0 for all. Raises
    UserError naming the first row at fault, and where there is none.
    """

    def __init__(self, path: Path, alpha: Alpha = "white", limit: int = 0):
        self.alpha: Alpha = alpha
        self.left_out = 0
        self.tasks: list[Task] = []
        self.losing: list[Task] = []
        if path.is_dir():
            raise UserError(f"{path}: is a folder", "preference.pairs is a file of JSON lines")
        for entry in manifests.read(path):
            if isinstance(entry, Fault):
                raise UserError(entry.message)
            row = translated(entry)
            if isinstance(row, LeftOut):
                continue
            task, winner, loser = _pair(row)
            self.tasks.append(replace(task, target=winner))
            self.losing.append(replace(task, target=loser))
            if len(self.tasks) == limit:
                break
        if not self.tasks:
            raise UserError(f"{path}: holds no pairs; give a line for each, with prompt, references, winner and loser")
        self.size: int | None = len(self.tasks)

    def preferences(self, indices: Sequence[int]) -> tuple[Batch, list[Image.Image], list[Image.Image]]:
        """The tasks at ``indices``, their winners and their losers, RGB. Raises UserError naming a broken picture."""
        winners, losers = (
            [self._read(task.target).convert("RGB") for i in indices if (task := tasks[i]).target is not None]
            for tasks in (self.tasks, self.losing)
        )
        return self.batch(indices), winners, losers


def _pair(entry: Entry) -> tuple[Task, Path, Path]:
    task = task_of(entry)
    for name in ("winner", "loser"):
        if not names_file(entry.fields.get(name)):
            raise UserError(f"{entry.where}: {name} must be a picture file")
        refuse_address(entry.fields[name], entry.where)
    winner, loser = (entry.files.path(entry.fields[name]) for name in ("winner", "loser"))
    if winner == loser:
        raise UserError(f"{entry.where}: winner and loser are one picture", "leave the pair out")
    return task, winner, loser
