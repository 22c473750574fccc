"""What is no fault of any row, and may yet not be meant: remarks on a whole data set."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path

from cgrpo.data.archives import is_private
from cgrpo.data.folders import CAPTIONS, unread
from cgrpo.data.rows import Rows
from cgrpo.text import read_text
from cgrpo.types import Task


def notes_on(rows: Rows) -> Iterator[str]:
    """Sentences on the set, none where nothing is remarkable."""
    records = [row for row in rows if isinstance(row, Task)]
    captions = sum(_is_own_caption(record) for record in records)
    if captions:
        yield (
            f"{captions} prompts are the captions of their own references (a .txt beside a picture): the task is to "
            "show the subject elsewhere, so such rows teach to copy; cgrpo data prompts makes tasks of photographs"
        )
    if records and (lacking := sum(not record.subject for record in records)):
        yield (
            f'{lacking} of {len(records)} rows have no "subject" (a word or two, such as dog): what segments the '
            "subject needs one (rewards of type dino-seg)"
        )
    if len(records) > 1 and len({subject_of(record) for record in records}) == 1:
        yield "all rows show one subject: hold out prompts rather than subjects, as cgrpo data prompts does"


def notes_of(folder: Path) -> Iterator[str]:
    """What a folder of captioned pictures holds besides."""
    left = unread(folder)
    if left:
        listed = ", ".join(f"{ending} ({count})" for ending, count in left.most_common(8))
        yield f"{left.total()} files are left out, no picture with its prompt: {listed}"


def subject_of(record: Task) -> Hashable:
    """Which subject a record shows: as its meta says, or else by its references."""
    return record.subject_id or record.references


def shared_with(held: Sequence[Task], training: Sequence[Task]) -> Iterator[str]:
    """What held-out rows have in common with those trained on; the same subject with other prompts is told, no more."""
    known, prompts = {subject_of(record) for record in training}, {_words(record) for record in training}
    files = {path for record in training for path in record.references}
    same = [r for r in held if subject_of(r) in known or any(path in files for path in r.references)]
    tasks = [record for record in same if _words(record) in prompts]
    if tasks:
        yield (
            f"{len(tasks)} of {len(held)} held-out rows have subject and prompt of rows that are trained on, the first "
            f"of them {tasks[0].id}: what is known by heart tells nothing; leave them out"
        )
    elif same and len(known) > 1:
        yield (
            f"{len(same)} of {len(held)} held-out rows show subjects that are trained on, the first {same[0].id}: "
            "they say how other prompts would come out, nothing about other subjects"
        )


def _words(record: Task) -> str:
    return " ".join(record.prompt.lower().split())


def _is_own_caption(record: Task) -> bool:
    if len(record.references) != 1 or is_private(record.references[0]) or record.target is not None:
        return False
    beside = [Path(record.references[0]).with_suffix(ending) for ending in CAPTIONS]
    try:
        return any(text.is_file() and read_text(text).strip() == record.prompt for text in beside)
    except (OSError, ValueError):
        return False
