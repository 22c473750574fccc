"""What the verbs have in common. A verb is a file: ``add`` says what it takes, ``run`` does it.

Everything heavy is imported inside ``run``, so that help is instant.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

RUN = "a run directory or an adapter (default: the base)"
RECIPE = "a packaged recipe or a TOML file (default: toybox)"


class Verb(Protocol):
    """A file of this room."""

    def add(self, verbs: argparse._SubParsersAction) -> None:
        """Add the verb's parser, or that of a group of verbs, to ``verbs``."""
        ...


def add_verb(
    verbs: argparse._SubParsersAction,
    name: str,
    does: str,
    run: Callable[[argparse.Namespace], int | None],
    examples: str,
) -> argparse.ArgumentParser:
    """A verb's parser; ``run`` returns the exit code (None: 0), ``examples`` are whole command lines."""
    raw = argparse.RawDescriptionHelpFormatter  # keeps the examples' line breaks
    verb = verbs.add_parser(name, help=does, epilog=f"examples:\n{examples}", formatter_class=raw)
    verb.set_defaults(command=run)
    return verb


def add_group(
    verbs: argparse._SubParsersAction, name: str, about: str, members: Iterable[Verb], metavar: str = "ACTION"
) -> None:
    """``cgrpo name ACTION`` with an action for each of ``members``."""
    inner = verbs.add_parser(name, help=about).add_subparsers(metavar=metavar, required=True)
    for member in members:
        member.add(inner)


def add_settings(verb: argparse.ArgumentParser) -> None:
    """--set, as often as one likes."""
    verb.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="change a setting"
    )


def share(text: str) -> tuple[Path, float]:
    """RUN=SHARE, as argparse takes types."""
    run, equals, number = text.rpartition("=")
    try:
        if not equals or not run:
            raise ValueError
        return Path(run), float(number)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: write it as RUN=SHARE, such as outputs/naive=0.3") from None


def positive(text: str) -> int:
    """A whole number from 1 on, as argparse takes types."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {value}")
    return value
