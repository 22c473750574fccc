"""Asking a server that may be restarting: repeated requests, and one line for everything else that goes wrong."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import socket
import sys
import time
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from cgrpo.errors import UserError
from cgrpo.rewards.wire import Refusal

if TYPE_CHECKING:
    import httpx

Answer = TypeVar("Answer", bound=BaseModel)
LATER = {502, 503, 504}  # a proxy whose server restarts
FIRST_WAIT, LONGEST_WAIT = 0.5, 15.0  # seconds between two attempts, doubled from one to the next
CONNECT = 10.0  # seconds
CURES = {
    401: "name the environment variable with the server's token as its token_variable",
    404: "set its reward and url",
    413: "send fewer pictures at a time, or give the server a larger --max-body",
}


class Unreachable(UserError):
    """The server did not answer for as long as the client was told to be patient."""


class Transport:
    """HTTP to the server at ``url``. ``where`` opens every error.

    ``timeout``: seconds to wait for an answer. ``patience``: seconds to go on asking after the first failure; the last
    attempt may take ``timeout`` longer. ``retries`` counts the requests that were repeated.
    """

    def __init__(self, where: str, url: str, token_variable: str, timeout: float, patience: float):
        if importlib.util.find_spec("httpx") is None:
            raise UserError(f"{where}: needs httpx: pip install httpx")
        import httpx

        self._where, self._patience, self.retries = where, patience, 0
        self._http = httpx.Client(
            base_url=url,
            headers=_bearer(where, token_variable),
            timeout=httpx.Timeout(timeout, connect=min(timeout, CONNECT)),
            trust_env=not is_local(urlsplit(url).hostname or ""),  # no proxy stands before this machine itself
        )

    def ask(self, method: str, path: str, kind: type[Answer], body: bytes = b"") -> Answer | Refusal:
        """The answer, or the refusal of a 409. Raises Unreachable after ``patience``, UserError for anything else."""
        since, wait = None, FIRST_WAIT
        while True:
            answer, trouble = self._once(method, path, body)
            if answer is not None:
                if since is not None:
                    print(f"cgrpo: {self._where}: answers again", file=sys.stderr)
                return self._read(answer, kind)
            now = time.monotonic()
            if since is None:
                since = now
                print(f"cgrpo: {self._where}: {trouble}; asking for {self._patience:g} s", file=sys.stderr)
            left = since + self._patience - now
            if left <= 0:
                raise Unreachable(
                    f"{self._where}: no answer for {self._patience:g} s ({trouble}); start the server again: "
                    "what is written is kept, and a training run continues with --resume"
                )
            time.sleep(min(wait, left))
            wait = min(2 * wait, LONGEST_WAIT)
            self.retries += 1

    def _once(self, method: str, path: str, body: bytes) -> tuple[httpx.Response | None, str]:
        """An answer that counts, or what is in its way for now."""
        import httpx

        try:
            answer = self._http.request(method, path, content=body, headers={"content-type": "application/json"})
        except httpx.TransportError as error:
            return None, f"{type(error).__name__}: {error}".removesuffix(": ")
        return (None, f"status {answer.status_code}") if answer.status_code in LATER else (answer, "")

    def _read(self, answer: httpx.Response, kind: type[Answer]) -> Answer | Refusal:
        try:
            if answer.status_code == 200:
                return kind.model_validate_json(answer.content)
            refusal = Refusal.model_validate_json(answer.content)
        except ValidationError:
            said = " ".join(answer.text.split())[:100]
            raise UserError(
                f"{self._where}: no reward server answers there (status {answer.status_code}: {said}); set its url"
            ) from None
        if answer.status_code == 409:
            return refusal
        cure = CURES.get(answer.status_code)
        raise UserError(f"{self._where}: {' '.join(refusal.error.split())}" + (f"; {cure}" if cure else ""))


def _bearer(where: str, variable: str) -> dict[bytes, bytes]:
    if not variable:
        return {}
    token = os.environ.get(variable, "").strip()
    if not token:
        raise UserError(f"{where}: the environment variable {variable} for the token is empty; export {variable}=...")
    return {b"authorization": f"Bearer {token}".encode()}


def is_loopback(host: str) -> bool:
    """Whether only this machine itself can reach what listens on ``host``."""
    host = host.lower().rstrip(".")
    try:
        return _address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def is_local(host: str) -> bool:
    """Whether who asks ``host`` asks this machine, by whatever of its names; others may reach it, too."""
    try:
        if _address(host).is_unspecified:  # 0.0.0.0 is what servers print
            return True
    except ValueError:
        pass
    return is_loopback(host) or host.lower().rstrip(".") == socket.gethostname().lower()


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(host)
    return (address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None) or address
