"""``scores.jsonl``: rows written as they come, by several processes, and read again."""

from __future__ import annotations

import functools
import json
import math
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO, get_args

from cgrpo.errors import UserError
from cgrpo.evaluation.scores.earlier import earlier_metrics, earlier_row
from cgrpo.evaluation.scores.rows import Key, Protocol, ScoreRow
from cgrpo.files import json_text, write_text
from cgrpo.text import decoded, parse_json

SCORES = "scores.jsonl"
_ENDING = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,4}$")  # of any picture, but not ".5"


def read_scores(out: Path) -> list[ScoreRow]:
    """All rows in ``out``: of scores.jsonl and of parts not yet collected; the later of two for the same thing, also
    where its picture was converted meanwhile: a.png and a.jpg are one.

    A last line that was cut off is left out, and said. Rows of runs from before they had this schema are read too.
    Raises UserError for another line that is no row.
    """
    return list({_thing(row): row for file in [out / SCORES, *_parts(out)] for row in _read(file)}.values())


def last_scored(out: Path) -> float:
    """When the latest of the files that ``read_scores`` reads was written, as files' times are; 0 without any."""
    return max((file.stat().st_mtime for file in [out / SCORES, *_parts(out)] if file.is_file()), default=0.0)


def _thing(row: ScoreRow) -> tuple[Any, ...]:
    return (*row.key[:6], _ENDING.sub("", row.picture), row.reference)


def _parts(out: Path) -> list[Path]:
    return sorted(out.glob("scores.part*.jsonl"))


def _read(file: Path) -> Iterable[ScoreRow]:
    if not file.is_file():
        return
    lines = _text(file).split("\n")
    metrics = functools.cache(earlier_metrics)
    if not lines[-1].strip() or _torn(lines[-1]):
        if lines[-1].strip():
            print(f"cgrpo: {file}: its last line was cut off and is left out", file=sys.stderr)
        del lines[-1]
    for number, line in enumerate(lines, 1):
        try:
            table = parse_json(line)
            _check_score(table)
            yield earlier_row(table, metrics(file.parent)) if "arm" in table else _row(table)
        except LookupError as error:
            raise UserError(
                f"{file}, line {number}: no summary.json beside it says what {error} is; give the whole run directory"
            ) from None
        except (ValueError, TypeError, AttributeError) as error:
            raise UserError(f"{file}, line {number}: no row of scores ({error}); delete the line") from None


def _text(file: Path) -> str:
    content = file.read_bytes()
    try:
        return decoded(content)
    except ValueError:  # cut off within a letter, perhaps
        whole = content[: content.rfind(b"\n") + 1]
    try:
        return decoded(whole) + "{"
    except ValueError as error:
        raise UserError(f"{file}: {error}") from None


def _check_score(table: dict[str, Any]) -> None:
    """Raises ValueError for a score that is no number. Other programs write NaN for one that failed."""
    score = table.get("score")
    if isinstance(score, float) and math.isnan(score):
        table["score"] = None
    elif score is not None and (isinstance(score, bool) or not isinstance(score, int | float) or math.isinf(score)):
        raise ValueError(f"score {score!r} is no number")


def _row(table: dict[str, Any]) -> ScoreRow:
    """Raises TypeError for fields that are missing or unknown, ValueError for what none of them can hold: text that
    should be a number would make two things of one."""
    for key in ("prompt_index", "seed", "reference"):
        value = table.get(key)
        if isinstance(value, float) and value.is_integer():  # of a column with gaps
            table[key] = int(value)
        elif isinstance(value, float) and math.isnan(value):
            table[key] = None
        elif value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise ValueError(f"{key} {value!r} is no whole number")
    row = ScoreRow(**table)
    for key in ("method", "subject", "metric", "protocol", "picture", "subject_kind", "prompt_kind"):
        if not isinstance(table.get(key, ""), str):
            raise ValueError(f"{key} {table[key]!r} is no text")
    if row.protocol not in get_args(Protocol):
        raise ValueError(f"protocol {row.protocol!r} is none of {', '.join(get_args(Protocol))}")
    return row


def _torn(line: str) -> bool:
    """Whether a line without a line break was cut off; other programs leave the last one out."""
    try:
        return not isinstance(json.loads(line), dict)
    except ValueError:
        return True


def open_part(out: Path, rank: int) -> TextIO:
    """The file that process ``rank`` appends its rows to, rid of a line that was cut off."""
    file = out / f"scores.part{rank}.jsonl"
    if file.is_file():
        text = file.read_text(encoding="utf-8")
        whole, last = text[: text.rfind("\n") + 1], text[text.rfind("\n") + 1 :]
        write_text(file, whole if _torn(last) else f"{text}\n")
    return file.open("a", encoding="utf-8")


def write_row(file: TextIO, row: ScoreRow) -> None:
    file.write(json_text(asdict(row)) + "\n")


def write_scores(out: Path, rows: Iterable[ScoreRow]) -> None:
    """``scores.jsonl``, whole or not at all. Raises OSError."""
    write_text(out / SCORES, "".join(json_text(asdict(row)) + "\n" for row in rows))


def collect_rows(out: Path, order: Iterable[Key] = ()) -> list[ScoreRow]:
    """The processes' parts into ``scores.jsonl``, in ``order`` (others first), and the parts away; returns all rows."""
    rows = {row.key: row for row in read_scores(out)}
    for key in order:
        if key in rows:
            rows[key] = rows.pop(key)
    parts = _parts(out)
    write_scores(out, rows.values())
    for part in parts:
        os.unlink(part)
    return list(rows.values())
