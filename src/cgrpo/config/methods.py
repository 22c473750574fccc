"""The methods by name, and which of them has which settings."""

import copy
import functools
from collections.abc import Iterator, Mapping
from typing import Any

from cgrpo.config.run import Config
from cgrpo.extensions import Extensions
from cgrpo.section import Section

METHODS = Extensions(
    "method",
    "cgrpo.methods",
    {
        "grpo": "cgrpo.training.grpo.settings:GrpoConfig",
        "forward": "cgrpo.training.forward.settings:ForwardConfig",
        "sft": "cgrpo.training.sft.settings:SftConfig",
        "preference": "cgrpo.training.preference.settings:PreferenceConfig",
    },
)
DEFAULT_METHOD = "grpo"


def settings_of(method: str) -> type[Config]:
    """The configuration of a run by ``method``. Raises UserError for an unknown one."""
    return METHODS.load(method)


@functools.cache
def keys(method: str) -> tuple[str, ...]:
    """The method's settings as dotted keys, in order. What is a table by name, such as ``rewards``, is one key."""
    return tuple(_keys(settings_of(method), ""))


def _keys(section: type[Section], prefix: str) -> Iterator[str]:
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            yield from _keys(kind, f"{prefix}{name}.")
        else:
            yield prefix + name


def owners(key: str) -> list[str]:
    """The methods that have a setting or table of this name."""
    return [method for method in METHODS.names() if key in keys(method) or _is_table(key, method)]


def foreign(table: Mapping[str, Any], method: str, prefix: str = "") -> Iterator[str]:
    """Settings and whole tables in ``table`` that other methods have and ``method`` has not, as dotted keys."""
    for name, value in table.items():
        key = prefix + name
        methods = [] if "." in name else owners(key)  # a quoted "a.b" is one odd name, not b in the table a
        if methods and method not in methods:
            yield key
        elif isinstance(value, Mapping) and _is_table(key, method):
            yield from foreign(value, method, key + ".")


def without_foreign(table: Mapping[str, Any], method: str) -> dict[str, Any]:
    """``table`` without what only other methods have; what nobody has stays, to be refused."""
    kept = copy.deepcopy(dict(table))
    for key in foreign(table, method):
        *parents, last = key.split(".")
        part = kept
        for parent in parents:
            part = part[parent]
        del part[last]
    return kept


def _is_table(key: str, method: str) -> bool:
    return any(known.startswith(f"{key}.") for known in keys(method))
