"""``benchmark.json``: what the scores beside it are of, and in short how they came out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cgrpo.errors import UserError
from cgrpo.files import json_text, write_text

DESCRIPTION = "benchmark.json"
TABLES = ("references", "methods", "metrics")


def read_description(out: Path) -> dict[str, Any]:
    """What ``out``'s benchmark.json says; {} without one. Raises UserError where it can't be read."""
    file = out / DESCRIPTION
    try:
        table = json.loads(file.read_text(encoding="utf-8-sig")) if file.is_file() else {}
        if not isinstance(table, dict) or any(not isinstance(table.get(key, {}), dict) for key in TABLES):
            raise ValueError("it describes no scores")
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: can't be read ({error}); give another --out") from None
    return table


def join_description(out: Path, table: Mapping[str, Any]) -> dict[str, Any]:
    """``table`` joined with what ``out`` holds already: methods, metrics and subjects add up.

    Raises UserError where scores would mix that can't be compared: of another benchmark, against other photographs, or
    a metric or method of the same name that is something else.
    """
    before = read_description(out)
    if before:
        _refuse_mixing(out, before, table)
    joined = before | dict(table)
    for key in ("references", "methods", "metrics"):
        joined[key] = before.get(key, {}) | dict(table[key])
    return joined


def _refuse_mixing(out: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    old, new = before.get("mark") or {}, now["mark"]
    for key in (*new, *(old.keys() - new.keys())):
        if old.get(key) != new.get(key):
            raise UserError(
                f"{out} holds scores of another {key} ({old.get(key)}, now {new.get(key)}); give another --out"
            )
    for part in ("methods", "metrics"):
        for name in now[part].keys() & before.get(part, {}).keys():
            if _itself(now[part][name]) != _itself(before[part][name]):
                raise UserError(f"{out} holds scores of another {part[:-1]} called {name!r}; give another --out")


def _itself(what: Any) -> Any:
    """Which part a metric plays, as trained on or never, makes it no other metric."""
    return {key: value for key, value in what.items() if key != "role"} if isinstance(what, Mapping) else what


def write_description(out: Path, table: Mapping[str, Any]) -> None:
    """Raises UserError where it can't be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / DESCRIPTION, json_text(table, indent=1, ensure_ascii=False) + "\n")
    except OSError as error:
        raise UserError(f"can't write to {out}: {error.strerror}; give another --out") from error
