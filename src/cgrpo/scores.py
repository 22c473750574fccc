"""Scores as tidy rows, whoever made the pictures: one schema, its file scores.jsonl, and benchmark.json beside it.

A run's held-out evaluation, a benchmark and a human study write the same rows. ``benchmark.json`` describes what they
are scores of. Nothing here needs a model library.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple, TextIO, get_args

from cgrpo.errors import UserError
from cgrpo.files import json_text, read_table, reading, write_text, writing
from cgrpo.text import decoded, parse_json

SCORES = "scores.jsonl"
DESCRIPTION = "benchmark.json"
PROPERTY = "property"  # the kind of prompts that ask for what the subject is not ("a red ...")
# Reference rows, shown alongside every method; no method may have one of these names.
REAL, COPY, PROMPT_ONLY, AUTOENCODED = "real-vs-real", "copy-paste", "prompt-only", "autoencoded"
LARGEST = 1e100  # of a score's size
WHOLE = ("prompt_index", "seed", "reference")
RESERVED = (REAL, AUTOENCODED, COPY, PROMPT_ONLY)

Protocol = Literal["one", "all", "prompt", "picture"]
Key = tuple[str, str, int | None, int | None, str, str, str, int | None]

_JOINED = ("references", "methods", "metrics")  # parts of a description that add up
_ENDING = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,4}$")  # of any picture, but not ".5"


@dataclass(frozen=True)
class ScoreRow:
    """What a metric says of a picture.

    method        who made the picture; in a run "base" and "trained"
    subject       "cat", or "cat+dog" for a pair
    prompt_index  counts the subject's prompts from 0; None for real photos, as ``prompt`` is
    seed          None where nothing was generated
    metric        its name; benchmark.json has its unit, axis and checkpoint
    protocol      what an identity metric compares with: the "one" reference of a subject, or the mean over "all" its
                  photos; "prompt" for metrics of the prompt, "picture" for measures that are neither good nor bad
    score         None: could not be scored, and ``error`` says why
    picture       path in the method's folder (benchmark.json: methods), of photos in the benchmark's; "" where none
                  was kept
    subject_kind  "live", "object", or "mixed" for a pair of both; "" for none
    prompt_kind   "background", "property", ...; "" for none
    reference     which of the task's references an identity score is against, from 0; None: what the protocol says
    """

    method: str
    subject: str
    prompt_index: int | None
    prompt: str | None
    seed: int | None
    metric: str
    protocol: Protocol
    score: float | None
    picture: str
    error: str | None
    subject_kind: str = ""
    prompt_kind: str = ""
    reference: int | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for a score that sums and squares of scores would overflow by."""
        if self.score is not None and abs(self.score) > LARGEST:
            raise ValueError(f"score {self.score!r} is no number up to {LARGEST:g}")

    @property
    def key(self) -> Key:
        """What makes it another row."""
        task = (self.method, self.subject, self.prompt_index, self.seed)
        return (*task, self.metric, self.protocol, self.picture, self.reference)

    @property
    def column(self) -> Column:
        return Column(self.metric, self.protocol, self.reference)


class Column(NamedTuple):
    """A metric under a protocol, against one of the task's references or what the protocol says (None)."""

    metric: str
    protocol: Protocol
    reference: int | None = None

    @property
    def label(self) -> str:
        """As in every table: "dino (one)", "dino (one, reference 2)", "clip"."""
        protocol = self.protocol if self.reference is None else f"{self.protocol}, reference {self.reference + 1}"
        return f"{self.metric} ({protocol})" if self.axis == "identity" else self.metric

    @property
    def axis(self) -> str:
        return self.protocol if self.protocol in ("prompt", "picture") else "identity"


def protocol_of(role: str, axis: str, identity: Protocol = "one") -> Protocol:
    """What a metric is compared with. ``identity`` is the answer for metrics of identity, except guards."""
    if axis == "prompt":
        return "prompt"
    return identity if axis == "identity" and role != "guard" else "picture"


# -- scores.jsonl ----------------------------------------------------------------------------------


def read_scores(out: Path | str) -> list[ScoreRow]:
    """All rows of the folder ``out``: of scores.jsonl, and of the processes' parts that are not collected yet.

    Of two rows for the same picture the later counts, also where the picture was converted in between: a.png and
    a.jpg are one. A last line that was cut off is left out, with a message. Raises UserError for any other line that
    is no row.
    """
    return list({_without_ending(row): row for file in _files(Path(out)) for row in _read(file)}.values())


def last_scored(out: Path) -> float:
    """When the latest of the files that ``read_scores`` reads was written, as files' times are; 0 without any."""
    return max((file.stat().st_mtime for file in _files(out)), default=0.0)


def write_scores(out: Path, rows: Iterable[ScoreRow]) -> None:
    """``scores.jsonl``, whole or not at all. Raises OSError."""
    write_text(out / SCORES, "".join(json_text(asdict(row)) + "\n" for row in rows))


def open_part(out: Path, rank: int) -> TextIO:
    """The file that process ``rank`` appends its rows to, without a last line that was cut off."""
    file = out / f"scores.part{rank}.jsonl"
    if file.is_file():
        text = file.read_text(encoding="utf-8")
        whole, last = text[: text.rfind("\n") + 1], text[text.rfind("\n") + 1 :]
        write_text(file, whole if _is_cut_off(last) else f"{text}\n")
    return file.open("a", encoding="utf-8")


def write_row(file: TextIO, row: ScoreRow) -> None:
    file.write(json_text(asdict(row)) + "\n")


def collect_rows(out: Path, order: Iterable[Key] = ()) -> list[ScoreRow]:
    """Join the processes' parts into ``scores.jsonl`` and remove them. Returns all rows in ``order``, others first."""
    rows = {row.key: row for row in read_scores(out)}
    for key in order:
        if key in rows:
            rows[key] = rows.pop(key)
    parts = _parts(out)
    write_scores(out, rows.values())
    for part in parts:
        os.unlink(part)
    return list(rows.values())


def _parts(out: Path) -> list[Path]:
    return sorted(out.glob("scores.part*.jsonl"))


def _files(out: Path) -> list[Path]:
    return [file for file in (out / SCORES, *_parts(out)) if file.is_file()]


def _without_ending(row: ScoreRow) -> tuple[Any, ...]:
    return (*row.key[:6], _ENDING.sub("", row.picture), row.reference)


def _read(file: Path) -> Iterator[ScoreRow]:
    with reading(file):
        lines = _text(file.read_bytes()).split("\n")
    if not lines[-1].strip():
        del lines[-1]
    elif _is_cut_off(lines[-1]):
        print(f"cgrpo: {file}: its last line was cut off and is left out", file=sys.stderr)
        del lines[-1]
    for number, line in enumerate(lines, 1):
        try:
            yield _row(parse_json(line))
        except ValueError as error:
            raise UserError(f"{file}, line {number}: no row of scores ({error})", "delete the line") from None


def _text(content: bytes) -> str:
    """The text of a file, which may be cut off within a letter. Raises ValueError."""
    try:
        return decoded(content)
    except ValueError:
        return decoded(content[: content.rfind(b"\n") + 1]) + "{"


def _is_cut_off(line: str) -> bool:
    """Whether a last line without a line break was cut off. Other programs leave that break out."""
    try:
        return not isinstance(json.loads(line), dict)
    except ValueError:
        return True


def _row(table: dict[str, Any]) -> ScoreRow:
    """Raises ValueError for missing or unknown fields, and for a value of the wrong type.

    Other programs write NaN for a score that failed, and whole numbers of a column with gaps as 3.0 and NaN. A text in
    place of a number is refused: it would make two rows of one.
    """
    if not isinstance(table, dict):
        raise ValueError("no JSON object")
    names = [field.name for field in fields(ScoreRow)]
    if strange := table.keys() - names:
        raise ValueError(f"unknown field {min(strange)}; a row has {', '.join(names)}")
    if lacking := [name for name in names[:-3] if name not in table]:
        raise ValueError(f"no {', '.join(lacking)}")
    for name, value in table.items():
        if isinstance(value, float) and math.isnan(value):
            value = table[name] = None
        if isinstance(value, float) and name in WHOLE and value.is_integer():
            value = table[name] = int(value)
        if value is None and name in (*WHOLE, "score", "prompt", "error"):
            continue
        kind = int if name in WHOLE else int | float if name == "score" else str
        if isinstance(value, bool) or not isinstance(value, kind):
            noun = {int: "whole number", str: "text"}.get(kind, "number")
            raise ValueError(f"{name} {value!r} is no {noun}")
    row = ScoreRow(**table)
    if row.protocol not in get_args(Protocol):
        raise ValueError(f"protocol {row.protocol!r} is none of {', '.join(get_args(Protocol))}")
    return row


# -- benchmark.json --------------------------------------------------------------------------------


def read_description(out: Path) -> dict[str, Any]:
    """The content of ``out``'s benchmark.json; {} without one. Raises UserError where it can't be read."""
    file = out / DESCRIPTION
    if not file.is_file():
        return {}
    table = read_table(file, "give another --out")
    if any(not isinstance(table.get(name, {}), dict) for name in _JOINED):
        raise UserError(f"{file}: it describes no scores", "give another --out")
    return table


def join_description(out: Path, table: Mapping[str, Any]) -> dict[str, Any]:
    """``table`` joined with what ``out`` holds already: methods, metrics and subjects add up.

    Raises UserError where scores would mix that can't be compared: those of another benchmark or other photos (where
    ``conditions`` differ), or a metric or method of the same name that is something else.
    """
    before = read_description(out)
    if before:
        _refuse_mixing(out, before, table)
    joined = before | dict(table)
    for name in _JOINED:
        joined[name] = before.get(name, {}) | dict(table[name])
    return joined


def write_description(out: Path, table: Mapping[str, Any]) -> None:
    """Write ``out``'s benchmark.json. Raises UserError where it can't be written."""
    with writing(out / DESCRIPTION):
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / DESCRIPTION, json_text(table, indent=1, ensure_ascii=False) + "\n")


def _refuse_mixing(out: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    old, new = before.get("conditions") or {}, now["conditions"]
    for name in (*new, *(old.keys() - new.keys())):
        if old.get(name) != new.get(name):
            message = f"{out} holds scores of another {name} ({old.get(name)}, now {new.get(name)})"
            raise UserError(message, "give another --out")
    for part in ("methods", "metrics"):
        for name in now[part].keys() & before.get(part, {}).keys():
            if _without_role(now[part][name]) != _without_role(before[part][name]):
                raise UserError(f"{out} holds scores of another {part[:-1]} called {name!r}", "give another --out")


def _without_role(entry: Any) -> Any:
    """A metric that is trained on is the same metric as one that is not."""
    return {name: value for name, value in entry.items() if name != "role"} if isinstance(entry, Mapping) else entry
