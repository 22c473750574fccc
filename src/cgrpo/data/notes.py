"""Notes on a whole data set: what is no fault of any row, and may yet not be meant."""

from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path

from cgrpo.data.archives import is_private
from cgrpo.data.benchmarks import ROWS, benchmark_of
from cgrpo.data.captions import remarks
from cgrpo.data.neighbours import CAPTIONS
from cgrpo.data.own_subject import HELD_OUT
from cgrpo.data.readers import locate
from cgrpo.data.suspicion import placeholder
from cgrpo.data.tasks import Rows
from cgrpo.text import read_text
from cgrpo.types import Task


def notes_on(path: Path, rows: Rows) -> Iterator[str]:
    """Sentences on the set at ``path``, none where nothing is remarkable."""
    tasks = [row for row in rows if isinstance(row, Task)]
    if name := benchmark_of(tasks):
        yield f"{name}: {len(tasks)} rows" + (f"; as published it has {count}" if (count := ROWS[name]) else "")
    if captions := sum(_is_own_caption(task) for task in tasks):
        yield (
            f"{captions} prompts are the captions of their own references (a .txt next to a picture). The task is to "
            "show the subject elsewhere, so such rows teach to copy; cgrpo data prompts makes tasks from photos"
        )
    placeholders = [(task.id, text) for task in tasks if (text := placeholder(task.prompt))]
    if placeholders:
        kinds = ", ".join(dict.fromkeys(text for _, text in placeholders[:100]))
        yield (
            f"{len(placeholders)} prompts hold what another program would replace, and the model reads it as words, "
            f"the first of them {placeholders[0][0]}: {kinds[:120]}"
        )
    unnamed = [task for task in tasks if task.subject and not _names(task.prompt, task.subject)]
    if unnamed:
        first = unnamed[0]
        yield f"{len(unnamed)} prompts don't name their subject, the first of them {first.id}: {first.subject}"
    if tasks and (lacking := sum(not task.subject for task in tasks)):
        yield (
            f'{lacking} of {len(tasks)} rows have no "subject" (a word or two, such as dog): what segments the '
            "subject needs one (rewards of type dino-seg)"
        )
    if len(tasks) > 1 and len({subject_of(task) for task in tasks}) == 1 and not _has_prompts_apart(path):
        yield "all rows show one subject: hold out prompts rather than subjects, as cgrpo data prompts does"
    if path.is_dir() and locate(path) == ("captions", path):
        yield from remarks(path)


def _has_prompts_apart(path: Path) -> bool:
    """Whether ``cgrpo data prompts`` wrote this set: the training tasks, or their held-out tasks next to them."""
    return path.name.endswith(HELD_OUT) or path.with_suffix(HELD_OUT).is_file()


def _names(prompt: str, subject: str) -> bool:
    words = subject.lower().split()
    return any(word in prompt.lower() for word in ([word for word in words if len(word) > 2] or words))


def subject_of(task: Task) -> Hashable:
    """Which subject a task shows: as its meta says, or else by its references."""
    return task.subject_id or task.references


def shared_with(held: Sequence[Task], training: Sequence[Task]) -> Iterator[str]:
    """What held-out tasks have in common with those trained on; the same subject with other prompts is only noted."""
    subjects, prompts = {subject_of(task) for task in training}, {_words(task) for task in training}
    files = {path for task in training for path in task.references}
    same = [task for task in held if subject_of(task) in subjects or any(path in files for path in task.references)]
    trained = [task for task in same if _words(task) in prompts]
    if trained:
        yield (
            f"{len(trained)} of {len(held)} held-out rows have subject and prompt of rows that are trained on, the "
            f"first of them {trained[0].id}: a model that knows them by heart scores well; leave them out"
        )
    elif same and len(subjects) > 1:
        yield (
            f"{len(same)} of {len(held)} held-out rows show subjects that are trained on, the first {same[0].id}: "
            "they say how other prompts would come out, nothing about other subjects"
        )


def _words(task: Task) -> str:
    return " ".join(task.prompt.lower().split())


def _is_own_caption(task: Task) -> bool:
    if len(task.references) != 1 or is_private(task.references[0]) or task.target is not None:
        return False
    texts = [Path(task.references[0]).with_suffix(ending) for ending in CAPTIONS]
    try:
        return any(text.is_file() and read_text(text).strip() == task.prompt for text in texts)
    except (OSError, ValueError):
        return False
