"""Settings that had another name in an earlier version. The old one goes on working, and the new one is said."""

from __future__ import annotations

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
    changed: dict[str, Any] = dict(table)
    found = []
    for old, new in MOVED.items():
        (old_table, old_name), (new_table, new_name) = old.split("."), new.split(".")
        source, target = changed.get(old_table), changed.get(new_table, {})
        if not isinstance(source, dict) or old_name not in source or not isinstance(target, dict):
            continue
        if new_name in target:
            raise UserError(f"{origin}: {old} is now {new}, and both are given; leave out {old}")
        found.append(old)
        changed[old_table] = {name: value for name, value in source.items() if name != old_name}
        changed[new_table] = target | {new_name: source[old_name]}
    return changed, tuple(found)


@functools.cache  # once in a process
def say(old: tuple[str, ...]) -> None:
    """The new names, on stderr."""
    if old:
        print("cgrpo: renamed:", ", ".join(f"{key} to {MOVED[key]}" for key in old), file=sys.stderr)
