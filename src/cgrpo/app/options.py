"""What a command's arguments may say: types for the signatures of commands, and how a command joins the command line.

The annotated signature of a function is its command line. Its docstring is the help: the first sentence describes the
command, ``Args:`` its arguments. Modules with signatures import nothing heavy, so that help is instant.
"""

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter, Token
from cyclopts.validators import Number

from cgrpo.errors import UserError
from cgrpo.files import json_text, write_text

MOST = 2**62  # whole numbers up to this fit every library
MANY = 100_000  # things that are listed one by one: more would only fill the memory


def _path(_: Any, tokens: Sequence[Token]) -> Path:
    """A path; no shell expands the ~ of ``--out=~/x``."""
    return Path(os.path.expanduser(tokens[0].value))


def _number(kind: type[int] | type[float], tokens: Sequence[Token]) -> int | float:
    value = kind(tokens[0].value)
    if not math.isfinite(value):
        raise ValueError(f"must be a finite number, got {value}")
    return value


def _new_file(_: Any, file: Path | None) -> None:
    """Refuse a file now that could not be written at the end of long work."""
    if file is None:
        return
    try:
        fits = not file.is_dir() and file.parent.is_dir()
        place = file if file.exists() else file.parent
    except OSError as error:  # a name too long, or a folder that is not readable
        raise ValueError(f"{error.strerror}; give another file.") from None
    if not fits:
        raise ValueError("Give a file in an existing folder.")
    if not os.access(place, os.W_OK):
        raise ValueError("It is not writable; give another file.")


def _runs_and_shares(_: Any, tokens: Sequence[Token]) -> list[tuple[Path, float]]:
    pairs = []
    for token in tokens:
        run, _, share = token.value.rpartition("=")
        try:
            pairs.append((Path(os.path.expanduser(run)), float(share)))
        except ValueError:
            run = ""
        if not run:
            raise ValueError(f"{token.value}: write it as RUN=SHARE, such as outputs/naive=0.3")
    return pairs


Folder = Annotated[Path, Parameter(converter=_path, metavar="DIR")]
File = Annotated[Path, Parameter(converter=_path, metavar="FILE")]
Files = Annotated[Sequence[File], Parameter(metavar="FILE", consume_multiple=True)]
NewFile = Annotated[Path, Parameter(converter=_path, validator=_new_file, metavar="FILE")]
Finite = Annotated[float, Parameter(converter=_number, metavar="X")]
Fraction = Annotated[float, Parameter(converter=_number, validator=Number(gte=0, lt=1), metavar="X")]
Share = Annotated[float, Parameter(converter=_number, validator=Number(gte=0, lte=1), metavar="SHARE")]
Whole = Annotated[int, Parameter(converter=_number, validator=Number(gte=0, lte=MOST), metavar="N")]
Positive = Annotated[int, Parameter(converter=_number, validator=Number(gte=1, lte=MOST), metavar="N")]
Several = Annotated[int, Parameter(converter=_number, validator=Number(gte=2, lte=MANY), metavar="N")]
Many = Annotated[int, Parameter(converter=_number, validator=Number(gte=1, lte=MANY), metavar="N")]
Port = Annotated[int, Parameter(converter=_number, validator=Number(gte=0, lte=65535), metavar="PORT")]
Shares = Annotated[Sequence[tuple[Path, float]], Parameter(converter=_runs_and_shares, n_tokens=1, metavar="RUN=SHARE")]

Run = Annotated[Path | None, Parameter(converter=_path, help="a run directory or an adapter (default: the base)")]
Recipe = Annotated[str, Parameter(help="a packaged recipe or a TOML file")]
BaseRecipe = Annotated[str, Parameter(metavar="RECIPE", help="describes the base, unless a run directory does")]
Settings = Annotated[
    Sequence[str],
    Parameter(name="--set", metavar="KEY=VALUE", help="change a setting, such as training.seed=1; repeatable"),
]


def _shown_default(value: Any) -> str | None:
    """How help shows a default; None hides it: an empty one is described by the argument's own text."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value)) or None
    return str(value) if value or (value == 0 and not isinstance(value, bool)) else None


def check_pictures(files: Sequence[Path], option: str = "") -> None:
    """Raises UserError for the first of ``files`` that is no picture's, before models are loaded."""
    for file in files:
        if file.is_dir():
            raise UserError(f"{option}{file}: is a folder", f"name pictures in it, such as {file / '*.png'}")
        if not file.exists() and "!/" not in str(file):  # of an archive
            raise UserError(f"{option}{file}: no such file")


DEFAULTS = Parameter(negative=(), json_dict=False, json_list=False, allow_repeating=True, show_default=_shown_default)


def command(
    name: str, function: Callable[..., Any], examples: str, show: Callable[[Any], int | None] | None = None
) -> App:
    """``function`` as a command; ``show`` prints its result and returns the exit code. ``examples``: command lines."""
    action = "return_value" if show is None else (lambda result: None if result is None else show(result))
    return App(
        name=name,
        default_command=function,
        help_epilogue=f"Examples:\n{examples}",
        result_action=action,
    )


def group(name: str, about: str, *commands: App) -> App:
    """``cgrpo NAME COMMAND`` for each of ``commands``, in this order."""
    app = App(name=name, help=about)
    for place, member in enumerate(commands):
        member.sort_key = place
        app.command(member)
    return app


def write_json(file: Path, value: Any) -> None:
    """Write ``value`` to ``file``, whole or not at all; straight into what is no plain file, such as /dev/stdout."""
    text = json_text(value, indent=2) + "\n"
    if file.is_symlink() or (file.exists() and not file.is_file()):
        file.write_text(text, encoding="utf-8")
    else:
        write_text(file, text)
