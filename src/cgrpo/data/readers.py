"""Data sets as they lie on disk, read into tasks: one entry point that recognises the layout.

LAYOUTS lists the layouts of files and folders; each reader yields rows that tasks.py checks. Rows of published data
sets with fields of their own are translated first (dialects.py). docs/reference/data.md describes them all for users.

Names of pictures are relative to the file that names them unless told otherwise; ``file.zip!/member`` leads into an
archive.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from cgrpo.data import benchmarks, captions, manifests, parquet, shards
from cgrpo.data.dialects import translated
from cgrpo.data.parts import TRAIN
from cgrpo.data.syncd_files import metadata_files
from cgrpo.data.tasks import Entry, Fault, LeftOut, Rows, id_of, task_of
from cgrpo.errors import UserError
from cgrpo.types import Task


class Layout(NamedTuple):
    """How data sets of one layout are told, by what lies at a path, and read.

    read  the rows at a path; the second argument is the pictures' folder, where the user names one
    """

    recognises: Callable[[Path], bool]
    read: Callable[[Path, Path | None], Iterable[Entry | Fault | LeftOut]]


def _read_syncd(folder: Path, root: Path | None) -> Iterable[Entry | Fault]:
    for file in metadata_files(folder):
        yield from manifests.read(file, root)


def _read_lists(folder: Path, root: Path | None) -> Iterable[Entry | Fault]:
    for file in benchmarks.lists(folder):
        yield from (benchmarks.with_subset(entry, file) for entry in manifests.read(file, root or folder))


LAYOUTS = {  # the first that recognises a path reads it
    "DreamBench++": Layout(lambda path: bool(benchmarks.captions_of(path)), benchmarks.read_dreambench_plus),
    "benchmark": Layout(lambda path: bool(benchmarks.lists(path)), _read_lists),
    "SynCD": Layout(lambda path: path.is_dir() and bool(metadata_files(path)), _read_syncd),
    "list": Layout(manifests.recognises, manifests.read),
    "WebDataset": Layout(shards.recognises, shards.read),
    "parquet": Layout(parquet.recognises, parquet.read),
    "captions": Layout(captions.recognises, captions.read),
}


def read_tasks(path: Path, root: Path | None = None, limit: int = 0) -> list[Task]:
    """The tasks of a file or folder, in its order. ``root``: the pictures' folder, where the file isn't in it.

    ``limit``: the first so many, 0 for all. Rows that the set's own quality filter leaves out don't count.
    Raises UserError naming the first row and field at fault, if there is none, or if the layout isn't known.
    """
    return chosen(scan(path, root), path, limit)


def chosen(rows: Rows, path: Path, limit: int) -> list[Task]:
    """As ``read_tasks``, from the rows of ``path``."""
    tasks: list[Task] = []
    for row in rows:
        if isinstance(row, Fault):
            raise UserError(row.message)
        if isinstance(row, Task):
            tasks.append(row)
        if limit and len(tasks) == limit:
            break
    if not tasks:
        raise UserError(f"{path}: the set's own quality filter leaves out all {len(rows)} rows")
    return tasks


def scan(path: Path, root: Path | None = None) -> Rows:
    """All rows: a row at fault is a Fault in its place, one that the set's own quality filter drops a LeftOut.

    Raises UserError if nothing can be read.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file", 'set data.source to a dataset, or to "toybox"')
    layout, place = locate(path)
    rows = [_checked(entry) for entry in LAYOUTS[layout].read(place, root)]
    if not rows:
        raise UserError(f"{place}: holds no rows", "give a list of {prompt, references}")
    return rows


def locate(path: Path) -> tuple[str, Path]:
    """The layout of what lies at ``path``, and where: of a folder with splits in folders, in its train/.

    Raises UserError if it is no known layout.
    """
    for name, layout in LAYOUTS.items():
        if layout.recognises(path):
            return name, path
    part = captions.splits_alone(path) or path / TRAIN
    if part.is_dir():
        return locate(part)
    if path.is_dir() and any(path.glob("*.arrow")):
        raise UserError(f"{path}: a folder of save_to_disk, which is not read", "write the data set with to_parquet")
    raise UserError(
        f"{path}: no known data set: neither a metadata.json of SynCD's, a metadata.jsonl or .csv, .tar or .parquet "
        "files, nor pictures with their prompts in .txt files next to them"
    )


def _checked(entry: Entry | Fault | LeftOut) -> Task | Fault | LeftOut:
    if not isinstance(entry, Entry):
        return entry
    try:
        row = translated(entry)
        return row if isinstance(row, LeftOut) else task_of(row)
    except UserError as error:
        return Fault(id_of(entry.fields) or entry.id, str(error))
