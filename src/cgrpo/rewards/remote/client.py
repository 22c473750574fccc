"""The client of ``cgrpo rewards serve``."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Set
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

import torch
from PIL.Image import Image
from pydantic import BaseModel, ValidationError
from torch import Tensor

from cgrpo.errors import UserError
from cgrpo.rewards.base import Axis, Reward
from cgrpo.rewards.network import is_local, read_secret, set_up
from cgrpo.rewards.remote import RemoteSettings
from cgrpo.rewards.remote.wire import (
    PROTOCOL,
    Health,
    Refusal,
    RewardInfo,
    ScoreRequest,
    Scores,
    make_request,
    pack_picture,
)
from cgrpo.types import Batch

if TYPE_CHECKING:
    import httpx

Answer = TypeVar("Answer", bound=BaseModel)
RETRIED = {502, 503, 504}  # of a proxy whose server restarts
FIRST_WAIT, LONGEST_WAIT = 0.5, 15.0  # seconds between two attempts, doubled from one to the next
CONNECT = 10.0  # seconds
CURES = {
    401: "name the environment variable with the server's token as its token_variable",
    404: "set its reward and url",
    413: "send fewer pictures at a time, or give the server a larger --max-body",
}


class Unreachable(UserError):
    """The server did not answer within ``patience``."""


class Transport:
    """HTTP to the server at ``url``. ``where`` opens every error.

    ``timeout``: seconds to wait for an answer. ``patience``: seconds to repeat a request after the first failure; the
    last attempt may take ``timeout`` longer. ``retries`` counts the requests that were repeated.
    """

    def __init__(self, where: str, url: str, token_variable: str, timeout: float, patience: float):
        import httpx  # an extra

        self._where, self._patience, self.retries = where, patience, 0
        self._token = read_secret(where, token_variable) if token_variable else ""
        headers = {b"content-type": b"application/json"}
        if self._token:
            headers[b"authorization"] = f"Bearer {self._token}".encode()
        with set_up(where):
            self._http = httpx.Client(
                base_url=url,
                headers=headers,
                timeout=httpx.Timeout(timeout, connect=min(timeout, CONNECT)),
                trust_env=not is_local(urlsplit(url).hostname or ""),  # no proxy stands before this machine itself
            )

    def request(self, method: str, path: str, answer: type[Answer], body: bytes = b"") -> Answer | Refusal:
        """The answer, or the refusal of a 409. Raises Unreachable after ``patience``, UserError for anything else."""
        import httpx

        first_failure, wait = None, FIRST_WAIT
        while True:
            try:
                response = self._http.request(method, path, content=body)
                trouble = f"status {response.status_code}" if response.status_code in RETRIED else ""
            except httpx.TransportError as error:
                trouble = self._scrub(f"{type(error).__name__}: {error}").removesuffix(": ")
            except (httpx.RequestError, httpx.InvalidURL) as error:
                raise UserError(f"{self._where}: {self._scrub(str(error))}", "set its url") from None
            else:
                if not trouble:
                    if first_failure is not None:
                        print(f"cgrpo: {self._where}: answers again", file=sys.stderr)
                    return self._read(response, answer)
            now = time.monotonic()
            if first_failure is None:
                first_failure = now
                print(f"cgrpo: {self._where}: {trouble}; retrying for {self._patience:g} s", file=sys.stderr)
            left = first_failure + self._patience - now
            if left <= 0:
                raise Unreachable(
                    f"{self._where}: no answer for {self._patience:g} s ({trouble})",
                    "start the server again: what is written is kept, and a training run continues with --resume",
                )
            time.sleep(min(wait, left))
            wait = min(2 * wait, LONGEST_WAIT)
            self.retries += 1

    def _read(self, response: httpx.Response, answer: type[Answer]) -> Answer | Refusal:
        try:
            if response.status_code == 200:
                return answer.model_validate_json(response.content)
            refusal = Refusal.model_validate_json(response.content)
        except ValidationError:
            text = " ".join(self._scrub(response.content.decode(errors="replace")).split())[:100]
            raise UserError(
                f"{self._where}: no reward server answers there (status {response.status_code}: {text})", "set its url"
            ) from None
        if response.status_code == 409:
            return refusal
        reason = " ".join(self._scrub(refusal.error).split())
        raise UserError(f"{self._where}: {reason}", CURES.get(response.status_code, ""))

    def _scrub(self, text: str) -> str:
        return text.replace(self._token, "***") if self._token else text


class RemoteReward(Reward):
    """The reward called ``reward`` on the server at ``url``: the same scores as in this process, bit for bit.

    Raises UserError if the server has no such reward, if that measures another ``axis``, if its weights are not
    ``checkpoint`` (where given), or if they ever change.

    A request to a server that can't be reached, does not answer for ``timeout`` seconds, or says 502, 503 or 504 is
    repeated, for ``patience`` seconds after the first failure. After that the run stops (``on_failure`` "stop",
    UserError), or the pictures at hand get NaN ("nan"). Any other refusal, and a reward that fails on the server,
    stops the run at once.

    References travel once; ``Batch.spec`` never does. ``name`` is what errors call this reward.
    """

    background = True

    def __init__(self, name: str, settings: RemoteSettings):
        self.axis: Axis = settings.axis
        self.reward, self.on_failure = settings.reward, settings.on_failure
        self._where = f"reward {name!r} at {settings.url}"
        self._transport = Transport(
            self._where, settings.url, settings.token_variable, settings.timeout, settings.patience
        )
        self._sent: set[str] = set()  # pictures that the server should know
        self._reports: list[tuple[int, dict[str, float]]] = []
        health = self._transport.request("GET", "health", Health)
        assert isinstance(health, Health)  # nothing is sent that it could miss
        self.server = health
        info = self._identify(settings.axis, settings.checkpoint)
        self.unit, self.checkpoint = info.unit, info.checkpoint

    def _identify(self, axis: Axis, checkpoint: str) -> RewardInfo:
        """The reward on the server. Raises UserError if it is not the one that was asked for."""
        if self.server.protocol != PROTOCOL:
            raise UserError(
                f"{self._where}: the server's messages are of version {self.server.protocol}, ours of {PROTOCOL}; "
                "install the same cgrpo on both sides"
            )
        info = self.server.rewards.get(self.reward)
        if info is None:
            raise UserError(f"{self._where}: no reward {self.reward!r} there; it has {', '.join(self.server.rewards)}")
        if info.axis != axis:
            raise UserError(f"{self._where}: {self.reward!r} measures {info.axis} there, not {axis}; set its axis")
        if checkpoint and info.checkpoint != checkpoint:
            raise UserError(
                f"{self._where}: {self.reward!r} is checkpoint {info.checkpoint} there, not {checkpoint}; "
                "serve the other one, or set its checkpoint"
            )
        return info

    def report(self) -> dict[str, float]:
        """The server's numbers, averaged over pictures if there were several calls; and repeated requests, if any."""
        keys = sorted({key for _, numbers in self._reports for key in numbers})
        result = {}
        for key in keys:
            rows = [(count, numbers[key]) for count, numbers in self._reports if key in numbers]
            result[key] = sum(count * value for count, value in rows) / sum(count for count, _ in rows)
        if self._transport.retries:
            result["retries"] = float(self._transport.retries)
        self._reports, self._transport.retries = [], 0
        return result

    def score(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
        request, named = make_request(self.reward, images_NHWC, batch)
        try:
            scores = self._scores(request, named)
        except Unreachable as error:
            if self.on_failure == "stop":
                raise
            print(f"cgrpo: {error}; {len(batch)} pictures are not scored", file=sys.stderr)
            return torch.full((len(batch),), torch.nan)
        if scores.checkpoint != self.checkpoint:
            raise UserError(
                f"{self._where}: the server came back with checkpoint {scores.checkpoint}, it was {self.checkpoint}; "
                "scores of both would mix: serve the first one and resume"
            )
        self._reports.append((len(batch), {k: torch.nan if v is None else v for k, v in scores.report.items()}))
        return torch.tensor([torch.nan if score is None else score for score in scores.scores], dtype=torch.float32)

    def _scores(self, request: ScoreRequest, named: Mapping[str, Image]) -> Scores:
        """Send the pictures that the server does not know yet, and once more those that it has forgotten."""
        unknown = named.keys() - self._sent
        answer = self._send(request, named, unknown)
        if isinstance(answer, Refusal):
            answer = self._send(request, named, unknown | (named.keys() & set(answer.missing)))
        if isinstance(answer, Refusal):
            raise UserError(f"{self._where}: {answer.error}")
        self._sent |= named.keys()
        return answer

    def _send(self, request: ScoreRequest, named: Mapping[str, Image], enclosed: Set[str]) -> Scores | Refusal:
        message = request.model_copy(update={"sent": {key: pack_picture(named[key]) for key in sorted(enclosed)}})
        body = message.model_dump_json().encode()
        if len(body) > self.server.max_body:
            raise UserError(
                f"{self._where}: a request of {len(body)} bytes, the server takes {self.server.max_body}",
                "give it a larger --max-body, or score fewer pictures at a time",
            )
        return self._transport.request("POST", "score", Scores, body)
