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
from cgrpo.errors import UserError

__all__ = ["main", "parser"]

VERBS = (train, sample, evaluate, analyze, study, reproduce, plan, adapter, rewards, data, toybox, cite)


CHATTY = ("torchao", "torch.utils._pytree", "diffusers.quantizers.torchao.torchao_quantizer")
"""Loggers whose words on import are of no use to our users."""


def _check_text(arguments: Sequence[str]) -> None:
    """Raises UserError for an argument, a path or a prompt, whose bytes are no UTF-8: no file of ours could say it."""
    for place, argument in enumerate(arguments, 1):
        try:
            argument.encode()
        except UnicodeEncodeError:
            shown = argument.encode(errors="backslashreplace").decode()
            raise UserError(
                f"argument {place} ({shown[:100]}) is no UTF-8; type it in UTF-8, rename the file"
            ) from None


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
    for chatty in CHATTY:
        logging.getLogger(chatty).setLevel(logging.ERROR)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks a letter shows another, and the work goes on
            stream.reconfigure(errors="replace")
    core = parser()
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        _check_text(arguments)
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
    except KeyboardInterrupt:
        print("cgrpo: interrupted; a training run continues with cgrpo train --resume RUN", file=sys.stderr)
        return 130
