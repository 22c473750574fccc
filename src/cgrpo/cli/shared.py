"""What the verbs have in common. A verb is a file: ``add`` says what it takes, ``run`` does it.

Everything heavy is imported inside ``run``, so that help is instant.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

from cgrpo.files import json_text, write_text

RUN = "a run directory or an adapter (default: the base)"
MOST = 2**62  # of whole numbers: what every library takes
MANY = 100_000
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
    sentence = f"{does[0].upper()}{does[1:]}."
    raw = argparse.RawDescriptionHelpFormatter  # keeps the examples' line breaks
    verb = verbs.add_parser(name, help=does, description=sentence, epilog=f"examples:\n{examples}", formatter_class=raw)
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
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a setting (docs/config.md); repeatable",
    )


def share(text: str) -> tuple[Path, float]:
    """RUN=SHARE, as argparse takes types."""
    run, equals, number = text.rpartition("=")
    try:
        if not equals or not run:
            raise ValueError
        return path(run), float(number)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: write it as RUN=SHARE, such as outputs/naive=0.3") from None


def path(text: str) -> Path:
    """A path, as argparse takes types; ``--out=~/x`` is none of a shell's business, so ~ is read here."""
    return Path(os.path.expanduser(text))


def new_file(text: str) -> Path:
    """A file to write at the end of long work, as argparse takes types: refused now where it can't be written then."""
    file = path(text)
    try:
        fits = not file.is_dir() and file.parent.is_dir()
        written = file if file.exists() else file.parent
    except OSError as error:  # a name too long for any file, or a folder that may not be looked into
        raise argparse.ArgumentTypeError(f"{text[:60]}: {error.strerror}; give another file") from None
    if not fits:
        raise argparse.ArgumentTypeError(f"{text}: give a file in a folder that is there")
    if not os.access(written, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text}: can't be written; give another file")
    return file


def write_json(file: Path, value: Any) -> None:
    """``value`` in ``file``, whole or not at all; straight into what is no plain file, such as /dev/stdout."""
    text = json_text(value, indent=2) + "\n"
    if file.is_symlink() or (file.exists() and not file.is_file()):
        file.write_text(text, encoding="utf-8")
    else:
        write_text(file, text)


def finite(text: str) -> float:
    """A number that is one, as argparse takes types: neither NaN nor infinity."""
    value = float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a finite number, got {text}")
    return value


def seed(text: str) -> int:
    """A seed, as argparse takes types: what every generator takes, pictures' numbers added to it."""
    return _whole(text, 0, MOST)


def count(text: str) -> int:
    """A whole number from 0 on, as argparse takes types."""
    return _whole(text, 0, MOST)


def port(text: str) -> int:
    """A TCP port or 0, as argparse takes types."""
    return _whole(text, 0, 65535)


def positive(text: str) -> int:
    """A whole number from 1 on, as argparse takes types."""
    return _whole(text, 1, MOST)


def listed(text: str) -> int:
    """How many of what is listed one by one, as argparse takes types: more would only fill the memory."""
    return _whole(text, 1, MANY)


def _whole(text: str, least: int, most: int) -> int:
    value = int(text)
    if value < least:
        raise argparse.ArgumentTypeError(f"must be {least} or more, got {value}")
    if value > most:
        raise argparse.ArgumentTypeError(f"must be {most} or less, got {text}")
    return value
