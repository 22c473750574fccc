"""What a check of a data set reports: its problems, row by row, and notes on the whole."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

ProblemKind = Literal["row", "missing", "broken", "duplicate", "near-duplicate", "chatter", "mask"]
PROBLEM_KINDS: tuple[ProblemKind, ...] = get_args(ProblemKind)


@dataclass(frozen=True)
class Problem:
    """What is wrong with the row called ``id``, the ``row``-th of the data set (from 0).

    "row": no task, a field is at fault. "missing", "broken": a picture. "duplicate": the id, the whole task, or a
    picture's content was there before. "near-duplicate": a picture looks like another's (suspicion.py says when).
    "chatter": the prompt is a chat model's talk. "mask": it is empty, full, of another shape, or can't be read.
    """

    id: str
    row: int
    kind: ProblemKind
    message: str


@dataclass(frozen=True)
class CheckReport:
    """``pictures`` counts distinct files; ``left_out`` those of the ``rows`` that the set's own quality filter drops.

    ``quick``: no picture was decoded, so nobody looked for damage and likeness. ``notes`` are about the whole set:
    what is no fault of a row, and may yet not be meant.
    """

    manifest: str
    rows: int
    left_out: int
    pictures: int
    quick: bool
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[ProblemKind, int]:
        """Problems by kind, all kinds."""
        counter = Counter(problem.kind for problem in self.problems)
        return {kind: counter[kind] for kind in PROBLEM_KINDS}

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        head = {key: value for key, value in vars(self).items() if key != "problems"}
        return head | {"counts": self.counts, "problems": [asdict(problem) for problem in self.problems]}
