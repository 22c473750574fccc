"""An application behind HTTP: `cgrpo rewards serve` and `cgrpo study serve`. See rewards/remote/wire.py for rewards."""

from __future__ import annotations

import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from cgrpo.errors import UserError
from cgrpo.extensions import is_installed

if TYPE_CHECKING:
    from fastapi import FastAPI

BACKLOG = 2048  # connections that wait to be taken


def check_installed(command: str) -> None:
    """Raise UserError where a package that ``command`` serves with is missing."""
    for package in ("fastapi", "uvicorn"):
        if not is_installed(package):
            raise UserError(f"{command} needs {package}", "pip install fastapi httpx uvicorn")


def listen(host: str, port: int) -> socket.socket:
    """A bound socket; port 0 is any that is free. Raises UserError."""
    try:
        (family, kind, protocol, _, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except (OSError, OverflowError, UnicodeError) as error:  # UnicodeError: a part of the name is empty or too long
        raise UserError(f"can't listen on {host}, port {port} ({error})", "give another --host or --port") from error
    return bound


def run(app: FastAPI, bound: socket.socket, host: str, what: str) -> None:
    """Print that ``what`` is served at ``host``, and serve until interrupted; requests under way are finished.

    Raises UserError where another process took the port meanwhile.
    """
    import uvicorn

    name = f"[{host}]" if ":" in host else host
    print(f"serving {what} on http://{name}:{bound.getsockname()[1]}", file=sys.stderr, flush=True)
    try:
        bound.listen(BACKLOG)  # two may have bound it while neither listened
    except OSError as error:
        address = "{}, port {}".format(*bound.getsockname()[:2])
        raise UserError(f"can't listen on {address} ({error.strerror})", "give another --port") from error
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
    with suppress(KeyboardInterrupt):  # the usual end
        uvicorn.Server(config).run(sockets=[bound])
