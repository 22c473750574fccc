"""Settings that had another name in an earlier version. The old one goes on working, and the new one is said."""

from __future__ import annotations

import copy
import functools
import sys
from collections.abc import Mapping
from typing import Any

from cgrpo.errors import UserError

MOVED = {
    "training.clip": "objective.clip",
    "training.kl": "objective.kl",
    "training.max_ratio_drift": "objective.max_ratio_drift",
}


def renamed(table: Mapping[str, Any], origin: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """``table`` under the new names, and the old ones that it had. Raises UserError where both are given."""
    changed = copy.deepcopy(dict(table))
    found = []
    for old, new in MOVED.items():
        source, name = _place(changed, old, make=False)
        if name not in source:
            continue
        found.append(old)
        value = source.pop(name)
        target, name = _place(changed, new, make=True)
        if name in target:
            raise UserError(f"{origin}: {old} is now {new}, and both are given; leave out {old}")
        target[name] = value
    return changed, tuple(found)


def _place(table: dict[str, Any], key: str, *, make: bool) -> tuple[dict[str, Any], str]:
    """The table that the last part of ``key`` stands in, and that part; an empty one where there is no such table."""
    *parents, name = key.split(".")
    for parent in parents:
        table = table.setdefault(parent, {}) if make else table.get(parent, {})
        if not isinstance(table, dict):  # refused when the table is validated
            return {}, name
    return table, name


@functools.cache  # once in a process
def say(old: tuple[str, ...]) -> None:
    """The new names, on stderr."""
    if old:
        print("cgrpo: renamed:", ", ".join(f"{key} to {MOVED[key]}" for key in old), file=sys.stderr)
