"""The command line. Heavy imports happen inside the commands, so that help is instant."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from cgrpo.cli.arguments import parser
from cgrpo.errors import UserError

__all__ = ["main", "parser"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; a user's mistake is one line on standard error and exit code 2."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # one bar: the training's
    for chatty in ("torchao", "torch.utils._pytree"):  # what they say on import is of no use to our users
        logging.getLogger(chatty).setLevel(logging.ERROR)
    core = parser()
    options = core.parse_args(arguments)
    if "command" not in options:
        core.print_help()
        return 2
    try:
        return options.command(options) or 0  # a command that found something wrong tells its own code
    except UserError as error:
        print(f"cgrpo: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, a folder that can't be written
        print(f"cgrpo: {error.filename or 'disk'}: {error.strerror or error}; what is written is kept", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("cgrpo: interrupted; a training run continues with cgrpo train --resume RUN", file=sys.stderr)
        return 130
