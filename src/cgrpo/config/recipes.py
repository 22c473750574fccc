"""Recipes, settings on top of them, and one line for what is wrong with either."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cgrpo.config.rewards import REWARD_TYPES
from cgrpo.config.section import TOYBOX, Section
from cgrpo.config.settings import Config
from cgrpo.errors import UserError


def recipes() -> dict[str, Path]:
    """The recipes that the package carries, by name."""
    folder = Path(str(resources.files("cgrpo") / "recipes"))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load_config(recipe: str = TOYBOX, settings: Iterable[str] = ()) -> Config:
    """A recipe (a packaged name or a TOML file) with ``key=value`` settings on top. Raises UserError."""
    table = _read(recipe)
    for setting in settings:
        _apply(table, setting)
    return parse_config(table, str(recipe))


def _read(recipe: str, readers: tuple[str, ...] = ()) -> dict[str, Any]:
    """The recipe's table; one that ``extends`` another holds only what differs from it."""
    known = recipes()
    path = known.get(recipe, Path(recipe))
    try:
        table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no recipe {recipe!r}: give a TOML file or one of {', '.join(known)}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"recipe {path}: {error}") from error
    base = table.pop("extends", None)
    if base is None:
        return table
    if not isinstance(base, str) or base in (*readers, recipe):
        raise UserError(f"recipe {path}: extends = {base!r} must name another recipe, and not in a circle")
    return _merged(_read(base, (*readers, recipe)), table)


def _merged(table: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``table`` with ``changes`` over it, tables merged key by key; a reward of another type replaces the whole."""
    merged = dict(table)
    for key, value in changes.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and old.get("type") == value.get("type", old.get("type")):
            value = _merged(old, value)
        merged[key] = value
    return merged


def override(cfg: Config, settings: Iterable[str]) -> Config:
    """``cfg`` with ``key=value`` settings on top. Raises UserError."""
    table = cfg.model_dump(mode="json")
    for setting in settings:
        _apply(table, setting)
    return parse_config(table, "--set")


def parse_config(table: dict[str, Any], origin: str) -> Config:
    """Validate a table; the first mistake becomes one line that names the key."""
    try:
        return Config.model_validate(table)
    except ValidationError as error:
        raise UserError(f"{origin}: {_explain(error)}") from None


def _apply(table: dict[str, Any], setting: str) -> None:
    """Set a dotted key in a nested table; values are read as TOML, plain words as strings."""
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise UserError(f"--set {setting}: write it as dotted.key=value")
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, last = key.strip().split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise UserError(f"--set {setting}: {parent} is a value, not a table")
    scores = parents[:-1] in (["rewards"], ["guard", "scorers"])
    if scores and last == "type" and table.get("type", value) != value:
        table.clear()  # another kind of reward has other settings
    table[last] = value


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    tag = 2 if place[:1] == ["rewards"] else 3 if place[:2] == ["guard", "scorers"] else len(place)
    if place[tag:] and place[tag] in REWARD_TYPES:
        del place[tag]  # of the union, which is no key
    key = ".".join(part for part in place if not part.startswith(("constrained-", "literal[")))  # tags of unions too
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, list(_keys(Config)), 1, 0.5)
        return f"unknown key {key}" + (f"; did you mean {near[0]}?" if near else "; see docs/config.md")
    message, given = first["msg"].removeprefix("Value error, "), first["input"]
    if first["type"] == "reward_type":
        key, message, given = f"{key}.type", message.removeprefix("type "), given.get("type", "nothing")
    got = "" if isinstance(given, dict | Section) else f", got {json.dumps(given, default=str)}"
    return f"{key + ': ' if key else ''}{message}{got}"


def _keys(section: type[Section], prefix: str = "") -> Iterable[str]:
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            yield from _keys(kind, f"{prefix}{name}.")
        else:
            yield prefix + name
