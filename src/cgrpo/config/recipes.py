"""Recipes, settings on top of them, and one line for what is wrong with either."""

import difflib
import itertools
import re
import tomllib
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cgrpo.config.methods import DEFAULT_METHOD, METHODS, foreign, keys, owners, settings_of, without_foreign
from cgrpo.config.run import DEFAULT_REWARDS, Config
from cgrpo.errors import UserError
from cgrpo.section import TOYBOX, first_fault, key_of
from cgrpo.text import read_text

# Where ai-toolkit, kohya's scripts and diffusers' examples name their pictures.
DATA_FOLDER = re.compile(
    r"""(?:folder_path|train_data_dir|image_dir|instance_data_dir)["']?\s*[:=]\s*["']?([^"'\n,#]+)"""
)


def recipes() -> dict[str, Path]:
    """The recipes that the package carries, by name."""
    folder = Path(str(resources.files("cgrpo") / "recipes"))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def sentence(path: Path) -> str:
    """What a recipe is: the first sentence of its opening comment."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), read_text(path).splitlines())
    return re.split(r"(?<=[.])(?<!Eq[.]) (?=[A-Z0-9])", " ".join(line.strip("# ") for line in lines))[0]


def load_config(recipe: str = TOYBOX, settings: Iterable[str] = ()) -> Config:
    """A recipe (a packaged name or a TOML file) with ``key=value`` settings on top. Raises UserError.

    Another ``method`` than the recipe's leaves out what the recipe says of its own method alone.
    """
    settings = list(settings)
    table = _with(_with_default_rewards(_read(recipe)), settings)
    return parse_config(_without_none(table), str(recipe), _texts(settings))


def _read(recipe: str, readers: tuple[str, ...] = ()) -> dict[str, Any]:
    """The recipe's table; one that ``extends`` another holds only what differs from it."""
    packaged = recipes()
    path = packaged.get(recipe, Path(recipe))
    try:
        table: dict[str, Any] = tomllib.loads(read_text(path).replace("\r\n", "\n"))
    except FileNotFoundError:
        near = difflib.get_close_matches(recipe, packaged, 1)
        guess = f"did you mean {near[0]}? " if near else ""
        cure = f"{guess}cgrpo train --list shows all; a TOML file works, too"
        raise UserError(f"no recipe {recipe!r}", cure) from None
    except (OSError, ValueError, RecursionError) as error:  # a number of thousands of digits, too
        raise UserError(f"recipe {path}: {_not_a_recipe(path, error)}") from error
    base = table.pop("extends", None)
    if base is None:
        return table
    if isinstance(base, str) and base not in packaged:
        base = str(path.parent / base)  # relative to the file that says it
    readers = (*readers, str(path.resolve()))
    if not isinstance(base, str) or str(packaged.get(base, Path(base)).resolve()) in readers:
        raise UserError(f"recipe {path}: extends = {base!r} must name another recipe, and not in a circle")
    return _merged(_of_method(_read(base, readers), table.get("method")), table)


def _not_a_recipe(path: Path, error: Exception) -> str:
    """What is wrong with a file that holds no recipe: it may be a run, or another trainer's configuration."""
    if path.is_dir():
        if (path / "config.json").exists():
            return f"is a run's folder; continue the run with --resume {path}"
        return f"is a folder; name a recipe, and the folder as --set data.source={path}"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if path.suffix.lower() in (".yaml", ".yml", ".json"):
        pictures = DATA_FOLDER.search(read_text(path))
        source = pictures[1].strip() if pictures else "FOLDER"
        return (
            f"is another program's configuration, and a recipe is TOML ({error}); name one of the packaged recipes and "
            f"your pictures: cgrpo train RECIPE --set data.source={source}"
        )
    return str(error)


def _of_method(table: dict[str, Any], method: Any) -> dict[str, Any]:
    """``table`` for another method: what is said of its own method alone is left out. None: as it is."""
    if method not in METHODS.names():  # an unknown one is refused later
        return table
    return without_foreign(table, method) | {"method": method}


def _merged(table: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``table`` with ``changes`` over it, tables merged key by key; a reward of another type replaces the whole."""
    merged = dict(table)
    for key, value in changes.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and old.get("type") == value.get("type", old.get("type")):
            value = _merged(old, value)
        merged[key] = value
    return merged


def _with_default_rewards(table: dict[str, Any]) -> dict[str, Any]:
    """A recipe's table over the default rewards: what it does not say of "identity" and "prompt" stays as there."""
    rewards = table.get("rewards", {})
    if not isinstance(rewards, dict):  # refused later
        return table
    default = {name: settings.model_dump(mode="json") for name, settings in DEFAULT_REWARDS.items()}
    return table | {"rewards": _merged(default, rewards)}


def _without_none(table: dict[str, Any]) -> dict[str, Any]:
    """``table`` without the rewards and the guard's judges whose type is "none"."""
    kept = dict(table)
    if isinstance(table.get("guard"), dict) and "scorers" in table["guard"]:
        kept["guard"] = table["guard"] | {"scorers": _without_none({"rewards": table["guard"]["scorers"]})["rewards"]}
    if isinstance(rewards := table.get("rewards"), dict):
        kept["rewards"] = {
            name: one for name, one in rewards.items() if not (isinstance(one, dict) and one.get("type") == "none")
        }
    return kept


def override(cfg: Config, settings: Iterable[str]) -> Config:
    """``cfg`` with ``key=value`` settings on top. Raises UserError."""
    settings = list(settings)
    table = _with(cfg.model_dump(mode="json"), settings)
    return parse_config(_without_none(table), "--set", _texts(settings))


def _texts(settings: Iterable[str]) -> dict[str, str]:
    read = (setting.partition("=") for setting in settings)
    return {key.strip(): text for key, _, text in read}


def parse_config(table: dict[str, Any], origin: str, texts: Mapping[str, str] | None = None) -> Config:
    """Validate a table; the first mistake becomes one line that names the key.

    ``texts``: settings as they were written. Where a field is text, that is its value, though TOML makes a number,
    a truth value or a date of it: a folder may be called 2024, true or nan.
    """
    method = _method(table, origin)
    for key in foreign(table, method):
        raise UserError(
            f"{origin}: {_first_leaf(table, key)} belongs to method {' and '.join(owners(key))}, "
            f"and this run's is {method}; leave it out"
        )
    try:
        return settings_of(method).model_validate(table)
    except ValidationError as error:
        keys_of_text = {key_of(fault["loc"]) for fault in error.errors() if fault["type"] == "string_type"}
        meant = {key: text for key, text in (texts or {}).items() if key in keys_of_text}
        if not meant:
            raise UserError(f"{origin}: {first_fault(error, keys(method))}") from None
        for key, text in meant.items():
            _apply(table, key, text, f"{key}={text}")
        return parse_config(table, origin)


def _method(table: dict[str, Any], origin: str) -> str:
    method = table.get("method", DEFAULT_METHOD)
    try:
        return METHODS.check(method)
    except ValueError as error:
        raise UserError(f"{origin}: method: {error}") from None


def _first_leaf(table: dict[str, Any], key: str) -> str:
    """``key``, or the first setting below it where it is a table of some."""
    value: Any = table
    for name in key.split("."):
        value = value[name]
    while isinstance(value, dict) and value and key not in _leaves():
        name = next(iter(value))
        key, value = f"{key}.{name}", value[name]
    return key


def _leaves() -> set[str]:
    return {key for method in METHODS.names() for key in keys(method)}


def _with(table: dict[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """``table`` with settings on top, the method first: what else they say is said of that one."""
    read = [_setting(setting) for setting in settings]
    for key, value, _ in read:
        if key == "method" and value != table.get("method", DEFAULT_METHOD):
            table = _of_method(table, value)
    for key, value, setting in read:
        _apply(table, key, value, setting)
    return table


def _setting(setting: str) -> tuple[str, Any, str]:
    """The dotted key, its value and the whole text; values are read as TOML, plain words as strings."""
    key, equals, text = setting.partition("=")
    key = key.strip()
    if not equals or not key:
        raise UserError(f"--set {setting}: write it as dotted.key=value")
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except (ValueError, RecursionError):  # plain words; a number of thousands of digits, too
        value = text
    return key, value, setting


def _apply(table: dict[str, Any], key: str, value: Any, setting: str) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise UserError(f"--set {setting}: {parent} is a value, not a table")
    scores = parents[:-1] in (["rewards"], ["guard", "scorers"])
    if scores and last == "type" and table.get("type", value) != value:
        table.clear()  # another kind of reward has other settings
    table[last] = value
