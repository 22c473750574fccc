"""What is known of a family of policies before torch or a model is imported. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from cgrpo.errors import UserError
from cgrpo.extensions import Extensions
from cgrpo.policies.layouts import Layout


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family of policies. Every place is "module:attribute", imported when it is needed.

    policy            place of its class, a ``cgrpo.policies.base.Policy``
    layout            where its LoRA sits, and what files call the layers; None without a LoRA on a stock transformer
    settings          place of its table ``policy``, a subclass of ``PolicySettings``; "" for that class itself
    own_settings      keys of ``PolicySettings`` that only some families have, this one among them
    shifts            its rules of ``sampling.shift``: places of functions (steps, tokens) -> sigmas, fp32 [steps + 1]
    reference_rules   its rules of ``policy.reference_rule``: places of functions (picture, side, multiple) -> picture,
                      RGB, both sides multiples of ``multiple`` pixels
    """

    policy: str
    layout: Layout | None = None
    settings: str = ""
    own_settings: frozenset[str] = frozenset()
    shifts: Mapping[str, str] = field(default_factory=dict)
    reference_rules: Mapping[str, str] = field(default_factory=dict)


POLICIES = Extensions(
    "policy",
    "cgrpo.policies",
    {
        "flux": "cgrpo.policies.flux.family:FAMILY",
        "flux2": "cgrpo.policies.flux2.family:FAMILY",
        "qwen-edit": "cgrpo.policies.qwen_edit.family:FAMILY",
        "qwen21": "cgrpo.policies.qwen21.family:FAMILY",
    },
)
"""A name stands for a ``Family``. The first takes checkpoints and adapters in which nothing tells a family."""


def families() -> Iterator[Family]:
    """Every family, in the order of their names; the package's own come first, and others load when reached."""
    return (POLICIES.load(name) for name in POLICIES.names())


def own_settings() -> frozenset[str]:
    """Keys of ``PolicySettings`` that only some families have."""
    return frozenset[str]().union(*(POLICIES.load(name).own_settings for name in POLICIES.own))


@dataclass(frozen=True)
class Rules:
    """The rules of one kind of all families, by name. ``kind``: the field of ``Family`` that has them."""

    kind: Literal["shifts", "reference_rules"]

    @property
    def own(self) -> list[str]:
        """The names that this package's families have."""
        return list(dict.fromkeys(name for key in POLICIES.own for name in getattr(POLICIES.load(key), self.kind)))

    def place(self, name: Any) -> str:
        """The rule's function, as "module:attribute". Raises ValueError where no family has it."""
        rules: dict[str, str] = {}
        for family in families():
            rules |= getattr(family, self.kind)
            if name in rules:
                return rules[name]
        raise ValueError(f"there is no rule {name!r}; choose one of {', '.join(rules)}")

    def check(self, name: str) -> str:
        """``name`` itself, for a field of settings. Raises ValueError as ``place``."""
        self.place(name)
        return name


SHIFTS, REFERENCE_RULES = Rules("shifts"), Rules("reference_rules")


def layout_of(keys: Iterable[str]) -> Layout | None:
    """The layout that has most of these stock keys' layers, of equals the one listed last; None if nothing tells."""
    names = list(keys)
    most = max(reversed(layouts()), key=lambda layout: _claims(layout, names))
    return most if _claims(most, names) else None


def refuse_other_family(where: object, keys: Iterable[str], layout: Layout) -> None:
    """Raises UserError where ``keys`` are another family's than the layout's."""
    names = list(keys)
    theirs = layout_of(names)
    if theirs and not _claims(layout, names):
        raise UserError(
            f"{where}: an adapter of {theirs.family}'s layers, but this base is {layout.family}",
            "load it on its own base",
        )


def layouts() -> list[Layout]:
    """Every family's; the first one's is that of adapters in which nothing tells a family."""
    return [family.layout for family in families() if family.layout]


def _claims(layout: Layout, names: Iterable[str]) -> int:
    return sum(bool(layout.own.search(name)) for name in names)
