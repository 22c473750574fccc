"""Finished judgements on disk: one small JSON file each, safe for several processes on any file system."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from cgrpo.files import json_text, writing
from cgrpo.fingerprint import of_picture, of_settings
from cgrpo.rewards.vlm.replies import HIGHEST, LOWEST
from cgrpo.rewards.vlm.rubrics import Part

REPLY = 4000  # characters of a reply that are kept


@dataclass(frozen=True)
class Judgement:
    """A finished judgement: the score from 0 to 4, NaN where the judge refused, and what it said."""

    score: float
    reply: str = ""

    @property
    def refused(self) -> bool:
        return self.score != self.score


class Entry(BaseModel):
    """A judgement as its file has it."""

    key: str
    score: Annotated[float, Field(strict=True, ge=LOWEST, le=HIGHEST)] | None
    reply: str


def fingerprint_of(parts: Sequence[Part], settings: Mapping[str, Any]) -> str:
    """Of everything a judgement depends on: texts (the rubric among them), pictures, and the settings."""
    content = [part if isinstance(part, str) else {"picture": of_picture(part)} for part in parts]
    return of_settings([content, settings])


class JudgementCache:
    """Judgements by fingerprint in a folder, in 256 sub-folders; with None for a folder, nothing is kept.

    An entry is written beside its place and moved there, so that a reader sees all of it or nothing. An entry that
    can't be read, or is another's, counts as missing. Raises UserError for a folder that can't be written.
    """

    def __init__(self, folder: Path | None):
        self.folder = folder
        if folder is not None:
            with writing(folder):
                folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=folder):
                    pass

    def get(self, key: str) -> Judgement | None:
        if self.folder is None:
            return None
        try:
            entry = Entry.model_validate_json(self._path(self.folder, key).read_bytes())
        except (OSError, ValidationError):
            return None
        score = float("nan") if entry.score is None else entry.score
        return Judgement(score, entry.reply) if entry.key == key else None

    def put(self, key: str, judgement: Judgement, about: Mapping[str, Any]) -> None:
        """``about`` is for people who read the entry."""
        if self.folder is None:
            return
        score = None if judgement.refused else judgement.score
        path = self._path(self.folder, key)
        with writing(path):
            path.parent.mkdir(exist_ok=True)
            handle, partial = tempfile.mkstemp(prefix=".", suffix=".partial", dir=path.parent)
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    file.write(json_text({"key": key, "score": score, "reply": judgement.reply[:REPLY], **about}))
                os.replace(partial, path)
            except BaseException:
                os.unlink(partial)
                raise

    @staticmethod
    def _path(folder: Path, key: str) -> Path:
        return folder / key[:2] / f"{key}.json"
