"""Asking a server that may be restarting: repeated requests, and one line for everything else that goes wrong."""

from __future__ import annotations

import importlib.util
import sys
import time
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from cgrpo.errors import UserError
from cgrpo.rewards.network import is_local, read_token, set_up
from cgrpo.rewards.remote.wire import Refusal

Answer = TypeVar("Answer", bound=BaseModel)
LATER = {502, 503, 504}  # a proxy whose server restarts
FIRST_WAIT, LONGEST_WAIT = 0.5, 15.0  # seconds between two attempts, doubled from one to the next
CONNECT = 10.0  # seconds
LARGEST = 2**26  # bytes of an answer; the scores of 65,536 pictures take two million
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
        self._token = read_token(where, token_variable) if token_variable else ""
        with set_up(where):
            self._http = httpx.Client(
                base_url=url,
                headers={b"authorization": f"Bearer {self._token}".encode()} if self._token else {},
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

    def _once(self, method: str, path: str, body: bytes) -> tuple[_Received | None, str]:
        """An answer that counts, or what is in its way for now. Raises UserError for what is no answer at all."""
        import httpx

        headers = {"content-type": "application/json"}
        try:
            with self._http.stream(method, path, content=body, headers=headers) as answer:
                content = bytearray()
                for piece in answer.iter_bytes():
                    content += piece
                    if len(content) > LARGEST:
                        raise self._stranger(answer.status_code, f"more than {LARGEST} bytes")
        except httpx.TransportError as error:
            return None, self._scrub(f"{type(error).__name__}: {error}").removesuffix(": ")
        except (httpx.RequestError, httpx.InvalidURL, ValueError, OverflowError) as error:  # no HTTP, or no address
            raise UserError(f"{self._where}: {self._scrub(str(error))}; set its url") from None
        received = _Received(answer.status_code, bytes(content))
        return (None, f"status {received.status}") if received.status in LATER else (received, "")

    def _read(self, answer: _Received, kind: type[Answer]) -> Answer | Refusal:
        try:
            if answer.status == 200:
                return kind.model_validate_json(answer.content)
            refusal = Refusal.model_validate_json(answer.content)
        except ValidationError:
            said = " ".join(self._scrub(answer.content.decode(errors="replace")).split())[:100]
            raise self._stranger(answer.status, said) from None
        if answer.status == 409:
            return refusal
        cure = CURES.get(answer.status)
        raise UserError(
            f"{self._where}: {' '.join(self._scrub(refusal.error).split())}" + (f"; {cure}" if cure else "")
        )

    def _stranger(self, status: int, said: str) -> UserError:
        return UserError(f"{self._where}: no reward server answers there (status {status}: {said}); set its url")

    def _scrub(self, text: str) -> str:
        return text.replace(self._token, "***") if self._token else text


@dataclass(frozen=True)
class _Received:
    status: int
    content: bytes
