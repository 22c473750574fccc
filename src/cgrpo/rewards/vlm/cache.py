"""Finished judgements on disk: one small JSON file each, safe for several processes."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgrpo.errors import UserError
from cgrpo.files import json_text
from cgrpo.fingerprint import of_picture
from cgrpo.rewards.vlm.replies import HIGHEST, LOWEST
from cgrpo.rewards.vlm.rubrics import Part

LARGEST = 1 << 16  # bytes of an entry; a larger file is none of ours
REPLY = 4000  # characters of a reply that are kept


@dataclass(frozen=True)
class Judgement:
    """A finished judgement: the score from 0 to 4, NaN where the judge refused, and what it said."""

    score: float
    reply: str = ""

    @property
    def refused(self) -> bool:
        return self.score != self.score


def question_key(parts: Sequence[Part], settings: Mapping[str, Any]) -> str:
    """A hash of everything a judgement depends on: texts (the rubric among them), pictures, and the settings."""
    content = [part if isinstance(part, str) else {"picture": of_picture(part)} for part in parts]
    return hashlib.sha256(json.dumps([content, settings], sort_keys=True).encode()).hexdigest()


class JudgementCache:
    """Judgements by key in a folder, in 256 sub-folders; with None for a folder, nothing is kept.

    An entry is written beside its place and moved there, so that a reader sees all of it or nothing; an entry that
    can't be read, or is another's, counts as missing and is made again. Raises UserError for a folder that can't be
    written.
    """

    def __init__(self, folder: Path | None):
        self.folder = folder
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=folder):
                    pass
            except OSError as error:
                raise self._unwritable(error) from error

    def get(self, key: str) -> Judgement | None:
        if self.folder is None:
            return None
        try:
            with self._path(self.folder, key).open("rb") as file:
                entry = json.loads(file.read(LARGEST))
            score, reply = entry["score"], entry["reply"]
            if entry["key"] != key or not isinstance(reply, str):
                return None
            if score is None:
                return Judgement(float("nan"), reply)
            fits = isinstance(score, int | float) and not isinstance(score, bool) and LOWEST <= score <= HIGHEST
            return Judgement(float(score), reply) if fits else None
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return None

    def put(self, key: str, judgement: Judgement, about: Mapping[str, Any]) -> None:
        """``about`` is for people who read the entry."""
        if self.folder is None:
            return
        score = None if judgement.refused else judgement.score
        entry = {"key": key, "score": score, "reply": judgement.reply[:REPLY], **about}
        path = self._path(self.folder, key)
        try:
            path.parent.mkdir(exist_ok=True)
            handle, partial = tempfile.mkstemp(prefix=".", suffix=".partial", dir=path.parent)
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    file.write(json_text(entry))
                os.replace(partial, path)
            except BaseException:
                os.unlink(partial)
                raise
        except OSError as error:
            raise self._unwritable(error) from error

    @staticmethod
    def _path(folder: Path, key: str) -> Path:
        return folder / key[:2] / f"{key}.json"

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(
            f"vlm cache {self.folder}: can't be written ({error.strerror}); make room there, or set another"
        )
