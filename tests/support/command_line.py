"""The command line without running it: its arguments, and what a line of words parses to."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from types import SimpleNamespace

from cyclopts.argument import Argument

from cgrpo.app.main import app, commands


def parse(words: Sequence[str]) -> SimpleNamespace:
    """The arguments of ``cgrpo WORDS`` by name, defaults too; a request's fields as arguments of their own."""
    _, bound, _ = app.parse_args(list(words))
    bound.apply_defaults()
    parsed = SimpleNamespace()
    for name, value in bound.arguments.items():
        fields = vars(value) if dataclasses.is_dataclass(value) else {name: value}
        vars(parsed).update(fields)
    return parsed


def arguments() -> dict[str, Argument]:
    """Every argument of every command, as "sample --seed" or "sample RUN"."""
    return {
        f"{words} {argument.name}": argument
        for words, command in commands()
        for argument in command.assemble_argument_collection(default_parameter=app.default_parameter)
    }
