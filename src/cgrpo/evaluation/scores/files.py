"""``scores.jsonl``: rows written as they come, by several processes, and read again."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from cgrpo.errors import UserError
from cgrpo.evaluation.scores.earlier import earlier_metrics, earlier_row
from cgrpo.evaluation.scores.rows import Key, ScoreRow
from cgrpo.files import write_text

SCORES = "scores.jsonl"


def read_scores(out: Path) -> list[ScoreRow]:
    """All rows in ``out``: of scores.jsonl and of parts not yet collected; the later of two for the same thing.

    A last line that was cut off is left out. Rows of runs from before they had this schema are read too. Raises
    UserError for another line that is no row.
    """
    return list({row.key: row for file in [out / SCORES, *_parts(out)] for row in _read(file)}.values())


def _parts(out: Path) -> list[Path]:
    return sorted(out.glob("scores.part*.jsonl"))


def _read(file: Path) -> Iterable[ScoreRow]:
    if not file.is_file():
        return
    lines = file.read_text(encoding="utf-8").split("\n")
    metrics = functools.cache(earlier_metrics)
    for number, line in enumerate(lines[:-1], 1):  # whatever follows the last line break was cut off
        try:
            table = json.loads(line)
            yield earlier_row(table, metrics(file.parent)) if "arm" in table else ScoreRow(**table)
        except LookupError as error:
            raise UserError(
                f"{file}, line {number}: no summary.json beside it says what {error} is; give the whole run directory"
            ) from None
        except (ValueError, TypeError) as error:
            raise UserError(f"{file}, line {number}: no row of scores ({error}); delete the line") from None


def open_part(out: Path, rank: int) -> TextIO:
    """The file that process ``rank`` appends its rows to, rid of a line that was cut off."""
    file = out / f"scores.part{rank}.jsonl"
    if file.is_file():
        text = file.read_text(encoding="utf-8")
        write_text(file, text[: text.rfind("\n") + 1])
    return file.open("a", encoding="utf-8")


def write_row(file: TextIO, row: ScoreRow) -> None:
    file.write(json.dumps(asdict(row)) + "\n")


def write_scores(out: Path, rows: Iterable[ScoreRow]) -> None:
    """``scores.jsonl``, whole or not at all. Raises OSError."""
    write_text(out / SCORES, "".join(json.dumps(asdict(row)) + "\n" for row in rows))


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
