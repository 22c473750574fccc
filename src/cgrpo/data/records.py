"""Tasks from a manifest: a JSON list, JSON lines, or UNO's JSON; paths are relative to the manifest."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from PIL.Image import Image

from cgrpo.errors import UserError
from cgrpo.types import Batch, Record


class Source(Protocol):
    """Tasks by index. ``size`` None is endless."""

    size: int | None

    def batch(self, indices: Sequence[int]) -> Batch:
        """The tasks at ``indices``, pictures read. Raises UserError naming a broken picture."""
        ...

    def pairs(self, indices: Sequence[int]) -> tuple[Batch, list[Image]]:
        """The tasks with their target pictures, for supervised fine-tuning. Raises UserError where there is none."""
        ...


class ManifestSource:
    """The records of a manifest; ``read`` turns a picture file into an RGB picture."""

    def __init__(self, path: Path, read: Callable[[Path], Image]):
        self.records = read_manifest(path)
        self.size: int | None = len(self.records)
        self._read = read

    def batch(self, indices: Sequence[int]) -> Batch:
        records = [self.records[index] for index in indices]
        return Batch(
            ids=tuple(record.id for record in records),
            prompts=tuple(record.prompt for record in records),
            references=tuple(tuple(self._read(path) for path in record.references) for record in records),
            subjects=tuple(record.subject for record in records),
            reference_masks=tuple(self._masks(record) for record in records),
        )

    def _masks(self, record: Record) -> tuple[Image | None, ...]:
        paths = record.masks or (None,) * len(record.references)
        return tuple(None if path is None else self._read(path) for path in paths)

    def pairs(self, indices: Sequence[int]) -> tuple[Batch, list[Image]]:
        targets = []
        for record in (self.records[index] for index in indices):
            if record.target is None:
                raise UserError(f"record {record.id} has no target picture; supervised fine-tuning needs one for each")
            targets.append(self._read(record.target))
        return self.batch(indices), targets


def read_manifest(path: Path) -> list[Record]:
    """Records of ``path``. Raises UserError naming the row and field at fault, or if there is none."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".jsonl":
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            rows = json.loads(text)
            rows = rows["records"] if isinstance(rows, dict) and "records" in rows else rows
    except FileNotFoundError:
        raise UserError(f'manifest {path}: no such file; data.source is a .json or .jsonl file, or "toybox"') from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"manifest {path}: can't be read as JSON ({error})") from error
    if not isinstance(rows, list) or not rows:
        raise UserError(f"manifest {path}: holds no records; give a list of {{prompt, references}}")
    return [_record(row, number, path) for number, row in enumerate(rows)]


def _record(row: Any, number: int, manifest: Path) -> Record:
    where = f"manifest {manifest}, record {number}"
    if not isinstance(row, dict):
        raise UserError(f"{where}: must be an object with prompt and references")
    prompt = row.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise UserError(f"{where}: prompt is missing or empty")
    references = row.get("references", row.get("image_paths"))
    if not isinstance(references, list) or not references or not all(isinstance(item, str) for item in references):
        raise UserError(f"{where}: references (or image_paths) must be a list of picture files")
    target, masks = row.get("target", row.get("image_tgt_path")), row.get("masks", [])
    if not isinstance(masks, list) or len(masks) not in (0, len(references)):
        raise UserError(f"{where}: masks must be a list with one file, or null, for each reference")
    return Record(
        id=str(row.get("id", number)),
        prompt=prompt,
        references=tuple(manifest.parent / item for item in references),
        subject=str(row.get("subject", "")),
        target=manifest.parent / target if isinstance(target, str) else None,
        masks=tuple(None if item is None else manifest.parent / str(item) for item in masks),
        meta=row.get("meta", {}),
    )
