"""A reward that another process computes; the client of ``cgrpo rewards serve``."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import torch
from PIL.Image import Image
from torch import Tensor

from cgrpo.errors import UserError
from cgrpo.rewards.base import Axis, Reward
from cgrpo.rewards.remote import RemoteSettings
from cgrpo.rewards.remote.transport import Transport, Unreachable
from cgrpo.rewards.remote.wire import PROTOCOL, Health, RewardInfo, ScoreRequest, Scores, make_request, pack_picture
from cgrpo.types import Batch


class RemoteReward(Reward):
    """The reward called ``reward`` on the server at ``url``: the same scores as in this process, bit for bit.

    The server is asked at once who it is. It is refused (UserError) if it has no such reward, if that measures
    another ``axis``, if its weights are not ``checkpoint`` (where given), or if they ever change under way.

    A server that can't be reached, does not answer for ``timeout`` seconds, or says 502, 503 or 504 is asked again,
    for ``patience`` seconds after the first failure (the last attempt may take ``timeout`` longer). After that the
    run stops (``on_failure`` "stop", UserError), or the pictures at hand get NaN ("nan"). Any other refusal, and a
    reward that fails on the server, stops the run at once.

    ``token_variable``: the environment variable with the server's token; empty for none. ``name`` is what errors call
    this reward. References travel once; ``Batch.spec`` never does.
    """

    def __init__(self, name: str, settings: RemoteSettings):
        self.axis: Axis = settings.axis
        self.reward, self.on_failure = settings.reward, settings.on_failure
        self._where = f"reward {name!r} at {settings.url}"
        self._transport = Transport(
            self._where, settings.url, settings.token_variable, settings.timeout, settings.patience
        )
        self._sent: set[str] = set()  # pictures that the server should know
        self._reports: list[tuple[int, dict[str, float]]] = []
        health = self._transport.ask("GET", "health", Health)
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

    def __call__(self, images_NHWC: Tensor, batch: Batch) -> Tensor:
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
        """Send what the server does not know yet, and once more what it has forgotten."""
        bring = named.keys() - self._sent
        while True:
            message = request.model_copy(update={"sent": {key: pack_picture(named[key]) for key in sorted(bring)}})
            body = message.model_dump_json().encode()
            if len(body) > self.server.max_body:
                raise UserError(
                    f"{self._where}: a request of {len(body)} bytes, the server takes {self.server.max_body}; "
                    "give it a larger --max-body, or score fewer pictures at a time"
                )
            answer = self._transport.ask("POST", "score", Scores, body)
            if isinstance(answer, Scores):
                self._sent |= named.keys()
                return answer
            forgotten = set(answer.missing) & named.keys()
            if forgotten <= bring:
                raise UserError(f"{self._where}: the server asks for pictures that it got; restart it")
            bring |= forgotten
