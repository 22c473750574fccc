"""The base of every table of settings, and the types of their values. Imports neither torch nor anything heavy."""

import difflib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from cgrpo.errors import page

TOYBOX = "toybox"  # in place of a path: what the package carries
TOYBOX_PAIR = "toybox-pair"  # the same of the world of two subjects (docs/notes/pair.md)
TOYBOX_WORLDS = (TOYBOX, TOYBOX_PAIR)  # in place of a data set, and of a reward's checkpoint
TOYBOX_POLICIES = (TOYBOX, "toybox-copy", TOYBOX_PAIR)  # in place of policy.path

MOST = 10**9
Positive = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, le=2**62)]
Share = Annotated[float, Field(ge=0, le=1)]


def _at_home(text: str) -> str:
    """``~`` is the shell's, which leaves it alone in ``--set key=~/x`` and never sees a recipe."""
    return os.path.expanduser(text) if text.startswith("~") else text


def _numbers(value: Any) -> Iterator[float]:
    """A setting's numbers: itself, or those of a list or a table by name."""
    if isinstance(value, Mapping):
        value = tuple(value.values())
    for one in value if isinstance(value, tuple) else (value,):
        if isinstance(one, int | float):
            yield one


PLACE = AfterValidator(_at_home)
Place = Annotated[str, PLACE]  # a path, or a name on the model hub


class Section(BaseModel):
    """A table of the configuration: frozen, unknown keys refused, and numbers finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    @field_validator("*")
    @classmethod
    def _in_range(cls, value: Any, info: ValidationInfo) -> Any:
        """Numbers that have no upper bound of their own: beyond this one float32 or a library's index overflows."""
        limits = cls.model_fields[info.field_name or ""].metadata
        bounded = any(hasattr(limit, "le") or hasattr(limit, "lt") for limit in limits)
        if not bounded and any(abs(number) > MOST for number in _numbers(value)):
            raise ValueError(f"must be at most {MOST}")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value(cls, value: Any, info: ValidationInfo) -> Any:
        """pydantic takes true for 1."""
        if isinstance(value, bool) and cls.model_fields[info.field_name or ""].annotation in (int, float):
            raise ValueError("must be a number")
        return value


AnySection = TypeVar("AnySection", bound=Section)


def settled(section: AnySection, began: Path) -> AnySection:
    """``section`` with its relative places in ``began``, where that folder has them."""
    changes: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Section):
            changes[name] = settled(value, began)
        elif isinstance(value, dict):
            changes[name] = {
                key: settled(one, began) if isinstance(one, Section) else one for key, one in value.items()
            }
        elif PLACE in field.metadata and value not in ("", *TOYBOX_POLICIES) and (began / value).exists():
            changes[name] = str(began / value)
    return section.model_copy(update=changes)


def dotted(table: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Settings as config.json has them, by dotted key. An empty table is a value."""
    for name, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from dotted(value, f"{before}{name}.")
        else:
            yield before + name, value


def first_fault(error: ValidationError, known: Iterable[str] = ()) -> str:
    """The first mistake that pydantic found, in one line that names the key; ``known`` keys are for suggestions."""
    # An unknown word is more likely the mistake than a missing one.
    first = min(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    key, message, given = key_of(first["loc"]), first["msg"].removeprefix("Value error, "), first["input"]
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, list(known), 1, 0.5)
        return f"unknown key {key}" + (f"; did you mean {near[0]}?" if near else f"; see {page('reference/config')}")
    if first["type"] == "reward_type":
        return f"{key}.type: {message}".removeprefix(".")
    got = "" if isinstance(given, dict | list | Section) else f", got {json.dumps(given, default=str)}"
    return f"{key + ': ' if key else ''}{message}{got}"


def key_of(location: Iterable[int | str]) -> str:
    """The dotted key of a fault's location."""
    return ".".join(str(part) for part in location if not str(part).startswith(("constrained-", "literal[")))
