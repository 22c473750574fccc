"""The command line: ``cgrpo COMMAND``. Whatever a user gets wrong is one line on standard error and exit code 2."""

import io
import os
import signal
import sys
from collections.abc import Iterator, Sequence

from cyclopts import App, CycloptsError

from cgrpo import __version__
from cgrpo.app import adapter, analyze, data, demo, evaluate, plan, reproduce, rewards, sample, study, toybox, train
from cgrpo.app.options import DEFAULTS, group
from cgrpo.errors import Stopped, UserError, one_line
from cgrpo.launch import wait_asleep_if_busy

__all__ = ["app", "commands", "main"]

app = group(
    "cgrpo",
    "Customized-GRPO: reinforcement learning of subject-driven image generators.",
    *(train.app, sample.app, demo.app, evaluate.app, analyze.app, study.app, reproduce.app, plan.app, adapter.app),
    *(rewards.app, data.app, toybox.app, plan.cite_app),
)
app.version = f"cgrpo {__version__}"
app.default_parameter = DEFAULTS
app.help_format = "plaintext"
app.suppress_keyboard_interrupt = False
app.print_error = app.exit_on_error = False
app.result_action = "return_value"

HELP = {"-h", "--help", "--version"}
LETTERS = "this locale has no UTF-8: export LC_ALL=C.UTF-8, or PYTHONUTF8=1"


def commands(core: App = app, words: str = "") -> Iterator[tuple[str, App]]:
    """Every command by its words, such as "evaluate toybox"."""
    for name, command in core.resolved_commands().items():
        if command.default_command is not None and not name.startswith("-"):
            yield f"{words}{name}", command
        elif not name.startswith("-"):
            yield from commands(command, f"{words}{name} ")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    _prepare_process()
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        _check_text(arguments)
        _check_folder()
        if arguments and HELP.isdisjoint(arguments):
            wait_asleep_if_busy()
        code = app(arguments)
        sys.stdout.flush()
        return code if isinstance(code, int) else 2 if _lacks_command(arguments) else 0
    except CycloptsError as error:
        return _fail(f"{one_line(str(error))} (see {' '.join(['cgrpo', *(error.command_chain or ()), '--help'])})")
    except UserError as error:
        return _fail(str(error))
    except Stopped as error:
        return _fail(str(error), error.code)
    except BrokenPipeError:  # whoever read us, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes at the end
        return 128 + signal.SIGPIPE
    except OSError as error:  # a full disk, a folder that can't be written
        return _fail(f"{error.filename or 'disk'}: {error.strerror or error}; what is written is kept")
    except UnicodeEncodeError as error:
        if _knows_all_letters():
            raise
        name = one_line(error.object.encode(errors="backslashreplace").decode())
        return _fail(f"{name[:200]}: a name with letters that are not known here; {LETTERS}")
    except (MemoryError, RuntimeError) as error:
        if not (reason := _memory(error)):
            raise
        return _fail(f"{one_line(reason)}; ask for less at a time (cgrpo plan); what is written is kept")
    except KeyboardInterrupt as error:
        return _fail(f"interrupted{'; ' * bool(str(error))}{error}", 130)


def _fail(message: str, code: int = 2) -> int:
    print(f"cgrpo: {message}", file=sys.stderr)
    return code


def _lacks_command(arguments: Sequence[str]) -> bool:
    """Whether help was printed because a command is missing."""
    _, parents, _ = app.parse_commands(arguments)
    return parents[-1].default_command is None and HELP.isdisjoint(arguments)


def _prepare_process() -> None:
    """Streams, loggers and environment that no library trips over."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # one bar: ours
    os.environ.pop("MPLBACKEND", None)  # a notebook's, which its commands inherit: matplotlib would not load with it
    # Closed streams go nowhere; otherwise the next file that is opened would take their place, and get the prints.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks a letter shows another, and the work continues
            stream.reconfigure(errors="replace")


def _knows_all_letters() -> bool:
    return sys.getfilesystemencoding().lower() == "utf-8"


def _check_text(arguments: Sequence[str]) -> None:
    """Raises UserError for an argument, a path or a prompt, whose bytes are no UTF-8: no file of ours could hold it."""
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


def _memory(error: MemoryError | RuntimeError) -> str:
    """What to say where memory is used up, a GPU's or the machine's; "" for any other error."""
    words = str(error).partition(". ")[0].partition("\n")[0]
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported for every command
        return f"the GPU's memory is used up ({words})"
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return f"the memory is used up ({words})" if words else "the memory is used up"
    return ""
