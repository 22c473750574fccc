"""The four kinds that others can add to: rewards, policies, methods and credit functions, each by name.

Every kind has one explicit dictionary of its own names. Another package adds a name through an entry point::

    [project.entry-points."cgrpo.rewards"]
    sharpness = "my_package.rewards:Sharpness"
"""

import difflib
import functools
import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from cgrpo.errors import UserError


@dataclass(frozen=True)
class Extensions:
    """What goes by which name.

    kind   one word for messages, such as "reward"
    group  the entry points' group, such as "cgrpo.rewards"
    own    this package's names and what they stand for: "module:attribute", imported at the first use
    """

    kind: str
    group: str
    own: Mapping[str, str]

    def names(self) -> list[str]:
        """This package's names in their order, then those of installed packages."""
        return [*self.own, *sorted(set(installed(self.group)) - set(self.own))]

    def load(self, name: str) -> Any:
        """What ``name`` stands for. Raises UserError for an unknown name or an installed package that can't load."""
        if name in self.own:
            return resolve(self.own[name])
        if entry := installed(self.group).get(name):
            try:
                return entry.load()
            except (Exception, SystemExit) as error:  # whatever that package does when it is imported
                reason = f"{type(error).__name__}: {error}"
                raise UserError(f"{self.kind} {name!r}: {entry.value} can't be loaded ({reason})") from error
        raise UserError(f"there is no {self.kind} {name!r}", self._cure(name))

    def check(self, name: Any) -> str:
        """``name`` itself, for a field of settings. Raises ValueError if nothing goes by it."""
        if name not in self.names():
            raise ValueError(f"there is no {self.kind} {name!r}; {self._cure(name)}")
        return name

    def _cure(self, name: Any) -> str:
        names = self.names()
        near = difflib.get_close_matches(str(name), names, 1)
        return f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(names)}"


def is_installed(package: str) -> bool:
    """Whether this package is installed. A folder of its name is no package, such as the one that wandb writes."""
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None


def resolve(place: str) -> Any:
    """What "module:attribute" stands for."""
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


@functools.cache
def installed(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group by name, as installed packages have them when it is first called."""
    return {entry.name: entry for entry in entry_points(group=group)}
