"""Composites: two pictures of one subject side by side in one, as Subjects200K (Yuanshi/Subjects200K) has them.

Its parquet files have the columns
    image                the composite, 1056 x 528 pixels: (8, 8, 520, 520) is the left picture, (528, 8, 1040, 520) the
                         right one
    description          {item, description_0, description_1, category, description_valid, ...}: the subject's name and
                         a caption of each picture
    quality_assessment   {compositeStructure, objectConsistency, imageQuality}, each from 0 to 5, or null
    collection           where the pair comes from
A row is a record: the left picture is the reference, the right one the target, its caption the prompt.

Rows below the usual filter are left out: a score below 5, no scores, or descriptions marked as not valid. They are
counted (``data check`` prints how many), not reported as faults. A file without a quality_assessment column was
filtered by whoever made it: all its rows are kept.

Written from descriptions of the set; no real file of it was checked.
"""

from __future__ import annotations

import io
from collections.abc import Collection
from typing import Any

from cgrpo.errors import UserError
from cgrpo.pictures import opened

SIZE = (1056, 528)
HALVES = {"left": (8, 8, 520, 520), "right": (528, 8, 1040, 520)}
COLUMNS = {"image", "description"}
SCORES = ("compositeStructure", "objectConsistency", "imageQuality")
ENOUGH = 5


def half(content: bytes, side: str, name: str) -> bytes:
    """The ``side`` ("left" or "right") of a composite, as BMP: PNG costs five times as much.

    Raises UserError, calling the picture ``name``, if it can't be read or has another size.
    """
    with opened(content, name) as whole:
        if whole.size != SIZE:
            given, wanted = (f"{width} x {height}" for width, height in (whole.size, SIZE))
            raise UserError(f"{name}: a composite of {given} pixels; only {wanted} is known how to cut")
        part = whole.crop(HALVES[side])
    out = io.BytesIO()
    (part if part.mode in ("L", "RGB") else part.convert("RGB")).save(out, "BMP")
    return out.getvalue()


def is_composite(columns: Collection[str], described: Collection[str]) -> bool:
    """Whether a file with these columns, and these fields in its description, is of composites."""
    return set(columns) >= COLUMNS and {"description_0", "description_1"} <= set(described)


def left_out(row: dict[str, Any]) -> str | None:
    """Why the usual filter leaves a row out, or None if it stays."""
    if (row.get("description") or {}).get("description_valid") is False:
        return "its descriptions are marked as not valid"
    if "quality_assessment" not in row:
        return None
    scores = row["quality_assessment"] or {}
    for name in SCORES:
        score = scores.get(name)
        if not isinstance(score, int | float) or not score >= ENOUGH:
            return f"{name} is {score}, below {ENOUGH}"
    return None


def fields(row: dict[str, Any], left: str | None, right: str | None) -> dict[str, Any]:
    """A row as fields.py has them, its pictures in the files ``left`` and ``right``."""
    told = row.get("description") or {}
    kept = {name: row[name] for name in ("collection", "quality_assessment") if row.get(name) is not None}
    return {
        "prompt": told.get("description_1"),
        "references": [left] if left else None,
        "target": right,
        "subject": told.get("item"),
        "meta": {"ref_prompt": told.get("description_0"), "category": told.get("category"), **kept},
    }
