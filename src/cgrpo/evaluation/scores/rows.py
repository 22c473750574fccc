"""Tidy rows of scores: one a picture and metric, in ``scores.jsonl``; written as they come, by several processes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TextIO

from cgrpo.errors import UserError
from cgrpo.files import write_text

Protocol = Literal["one", "all", "prompt", "picture"]
SCORES = "scores.jsonl"
PROPERTY = "property"  # the kind of prompts that ask for what the subject is not ("a red ...")
# Rows that stand beside every method, and so no method may be called.
REAL, COPY, PROMPT_ONLY, AUTOENCODED = "real-vs-real", "copy-paste", "prompt-only", "autoencoded"
RESERVED = (REAL, AUTOENCODED, COPY, PROMPT_ONLY)
Key = tuple[str, str, int | None, int | None, str, str, str]


@dataclass(frozen=True)
class ScoreRow:
    """What a metric says of a picture.

    subject       "cat", or "cat+dog" for a pair
    prompt_index  counts the subject's prompts from 0; None for real photographs, as prompt is
    subject_kind  "live", "object", or "mixed" for a pair of both; "" for none
    prompt_kind   "background", "property", ...; "" for none
    seed          None where nothing was generated
    metric        the name it was asked for by; benchmark.json says its unit, axis and checkpoint
    protocol      what an identity metric compares with: the "one" reference of a subject, or the mean over "all" its
                  photographs; "prompt" for metrics of the prompt, "picture" for measures that are neither
                  good nor bad (rewards/measures.py), beside all photographs
    score         None: could not be scored, ``error`` says why
    picture       path in the method's folder (benchmark.json: methods), of photographs in the benchmark's
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

    @property
    def key(self) -> Key:
        return (self.method, self.subject, self.prompt_index, self.seed, self.metric, self.protocol, self.picture)


def read_scores(out: Path) -> list[ScoreRow]:
    """All rows in ``out``: of scores.jsonl and of parts not yet collected; the later of two for the same thing.

    A last line that was cut off is left out. Raises UserError for another line that is no row.
    """
    found: dict[Key, ScoreRow] = {}
    for file in [out / SCORES, *_parts(out)]:
        for row in _read(file):
            found[row.key] = row
    return list(found.values())


def _parts(out: Path) -> list[Path]:
    return sorted(out.glob("scores.part*.jsonl"))


def _read(file: Path) -> Iterable[ScoreRow]:
    if not file.is_file():
        return
    lines = file.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines[:-1], 1):  # whatever follows the last line break was cut off
        try:
            yield ScoreRow(**json.loads(line))
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


def collect_rows(out: Path, order: Iterable[Key] = ()) -> list[ScoreRow]:
    """The processes' parts into ``scores.jsonl``, in ``order`` (others first), and the parts away; returns all rows."""
    rows = {row.key: row for row in read_scores(out)}
    for key in order:
        if key in rows:
            rows[key] = rows.pop(key)
    parts = _parts(out)
    lines = [json.dumps(asdict(row)) + "\n" for row in rows.values()]
    write_text(out / SCORES, "".join(lines))
    for part in parts:
        os.unlink(part)
    return list(rows.values())
