"""Any data set of one's own as a benchmark: its records, by subject."""

from __future__ import annotations

import itertools
import re
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

from cgrpo import fingerprint
from cgrpo.data import read_tasks
from cgrpo.errors import UserError
from cgrpo.evaluation.benchmark.suite import Row, Suite
from cgrpo.types import Task


def manifest_suite(path: Path, root: Path | None = None, limit: int = 0) -> Suite:
    """Whatever ``data.read_tasks`` reads; ``limit`` takes the first records alone (0: all).

    Records whose meta has the same ``subject_id``, or else those with the same references, are one subject, called by
    its subject word or its first reference's name, and numbered where two would have one name. All references of a
    record are shown to the policy; protocol "one" scores against the first. Masks count as in training. A record's
    target is a real picture that follows its prompt. Its meta may have a ``subject_kind`` (or SynCD's category) such
    as "live", and a ``prompt_kind`` such as "property". Raises UserError.
    """
    records = read_tasks(path, root, limit)
    names = _names(records)
    rows, counts = [], dict.fromkeys(names.values(), 0)
    photographs: dict[str, tuple[str, ...]] = {}
    masks: dict[tuple[str, str], tuple[Path, int]] = {}
    for number, record in enumerate(records):
        name = names[_subject(record)]
        if not record.references:
            raise UserError(f"manifest {path}, record {record.id}: has no reference to compare with")
        shown = tuple(str(file.absolute()) for file in record.references)
        photographs[name] = tuple(dict.fromkeys((*photographs.get(name, ()), *shown)))
        for shown_file, mask in zip(shown, record.masks, strict=False):
            if mask is not None:
                masks[name, shown_file] = (mask, record.mask_threshold)
        rows.append(
            Row(
                number,
                (name,),
                (record.subject,),
                shown,
                counts[name],
                record.prompt,
                subject_kind=str(record.meta.get("subject_kind") or record.meta.get("category") or ""),
                prompt_kind=str(record.meta.get("prompt_kind") or ""),
                target=str(record.target.absolute()) if record.target else None,
            )
        )
        counts[name] += 1
    texts = "\n".join(f"{row.subject} {row.prompt}" for row in rows)
    conditions: dict[str, Any] = {
        "benchmark": f"manifest {path.name}",
        "rows": fingerprint.of_text(texts)[:16],
    }
    conditions |= {"masks": len(masks)} if masks else {}
    return Suite(path.name, Path(), rows, photographs, conditions, masks=masks)


def _subject(record: Task) -> Hashable:
    return record.subject_id or record.references


def _names(records: Sequence[Task]) -> dict[Hashable, str]:
    """A name for each subject, safe as a folder's."""
    names: dict[Hashable, str] = {}
    for record in records:
        if _subject(record) in names:
            continue
        words = record.subject_id or record.subject or (record.references[0].stem if record.references else "")
        name = re.sub(r"[^\w-]+", "_", words).strip("_").lower()[:60] or "subject"
        numbered = (f"{name}-{number}" for number in itertools.count(2))  # which may be another's own name
        names[_subject(record)] = next(free for free in itertools.chain([name], numbered) if free not in names.values())
    return names
