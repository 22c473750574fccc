"""The command line: a file a verb (shared.py says what is in one), a folder where a word has several."""

from __future__ import annotations

import argparse
import io
import logging
import os
import signal
import sys
from collections.abc import Sequence

from cgrpo import __version__
from cgrpo.cli import adapter, analyze, cite, data, evaluate, plan, reproduce, rewards, sample, study, toybox, train
from cgrpo.errors import UserError, one_line

__all__ = ["main", "parser"]

VERBS = (train, sample, evaluate, analyze, study, reproduce, plan, adapter, rewards, data, toybox, cite)


CHATTY = ("torchao", "torch.utils._pytree", "diffusers.quantizers.torchao.torchao_quantizer", "matplotlib")
"""Loggers whose words on import are of no use to our users."""


LETTERS = "this locale has no UTF-8: export LC_ALL=C.UTF-8, or PYTHONUTF8=1"


def _knows_all_letters() -> bool:
    return sys.getfilesystemencoding().lower() == "utf-8"


def _check_text(arguments: Sequence[str]) -> None:
    """Raises UserError for an argument, a path or a prompt, whose bytes are no UTF-8: no file of ours could say it."""
    for place, argument in enumerate(arguments, 1):
        try:
            argument.encode()
        except UnicodeEncodeError:
            shown = argument.encode(errors="backslashreplace").decode()
            cause = "" if _knows_all_letters() else f"; or {LETTERS}"
            raise UserError(
                f"argument {place} ({shown[:100]}) is no UTF-8; type it in UTF-8, rename the file{cause}"
            ) from None


def _check_folder() -> None:
    """Raises UserError where the working directory was deleted: libraries end in riddles there."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UserError("the working directory is gone; start cgrpo in a folder that is there") from None


def _open_streams() -> None:
    """What the caller closed goes nowhere; else the next file that is opened would get its place, and its prints."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def _memory(error: MemoryError | RuntimeError) -> str:
    """What to say where memory is used up, a GPU's or the machine's; "" for any other error."""
    words = str(error).partition(". ")[0].partition("\n")[0]
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported for every command
        return f"the GPU's memory is used up ({words})"
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return f"the memory is used up ({words})" if words else "the memory is used up"
    return ""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    core = argparse.ArgumentParser(
        prog="cgrpo", description="Customized-GRPO: reinforcement learning of subject-driven image generators."
    )
    core.add_argument("--version", action="version", version=f"cgrpo {__version__}")
    commands = core.add_subparsers(title="commands", metavar="COMMAND")
    for verb in VERBS:
        verb.add(commands)
    return core


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; a user's mistake is one line on standard error and exit code 2."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # one bar: the training's
    os.environ.pop("MPLBACKEND", None)  # a notebook's, which its commands inherit: matplotlib would not load with it
    _open_streams()
    for chatty in CHATTY:
        logging.getLogger(chatty).setLevel(logging.ERROR)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks a letter shows another, and the work goes on
            stream.reconfigure(errors="replace")
    core = parser()
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        _check_text(arguments)
        _check_folder()
    except UserError as error:
        print(f"cgrpo: {error}", file=sys.stderr)
        return 2
    options = core.parse_args(arguments)
    if "command" not in options:
        core.print_help()
        return 2
    try:
        code = options.command(options) or 0  # a command that found something wrong tells its own code
        sys.stdout.flush()
        return code
    except UserError as error:
        print(f"cgrpo: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read us, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes at the end
        return 128 + signal.SIGPIPE
    except OSError as error:  # a full disk, a folder that can't be written
        print(f"cgrpo: {error.filename or 'disk'}: {error.strerror or error}; what is written is kept", file=sys.stderr)
        return 2
    except UnicodeEncodeError as error:
        if _knows_all_letters():
            raise
        name = one_line(error.object.encode(errors="backslashreplace").decode())
        print(f"cgrpo: {name[:200]}: a name with letters that are not known here; {LETTERS}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not (said := _memory(error)):
            raise
        print(f"cgrpo: {one_line(said)}; ask for less at a time (cgrpo plan); what is written is kept", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("cgrpo: interrupted; a training run continues with cgrpo train --resume RUN", file=sys.stderr)
        return 130
