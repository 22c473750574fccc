"""The server's side of rewards/remote/wire.py. Only this room imports FastAPI and uvicorn."""

from __future__ import annotations

import asyncio
import hmac
import logging
import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping

import torch
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from PIL.Image import Image
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from torch import Tensor

from cgrpo.errors import UserError
from cgrpo.rewards import Reward, scored
from cgrpo.rewards.fingerprint import reward_fingerprint
from cgrpo.rewards.remote.wire import (
    PROTOCOL,
    Health,
    Refusal,
    RewardInfo,
    ScoreRequest,
    Scores,
    named_pictures,
    number,
    read_batch,
    unpack_images,
    unpack_pictures,
    versions,
)
from cgrpo.types import Batch


class PictureStore:
    """The last pictures by key, up to ``limit`` bytes of pixels together. Safe to use from several threads."""

    def __init__(self, limit: int):
        self._limit, self._size = limit, 0
        self._pictures: OrderedDict[str, Image] = OrderedDict()
        self._lock = threading.Lock()

    def resolve(self, wanted: Collection[str], sent: Mapping[str, Image]) -> tuple[dict[str, Image], list[str]]:
        """The ``wanted`` pictures, from those just ``sent`` or kept; and the keys that are neither."""
        with self._lock:
            stored = {**self._pictures, **sent}
            pictures = {key: stored[key] for key in wanted if key in stored}
            for key, picture in {**sent, **pictures}.items():
                self._keep(key, picture)
            return pictures, sorted(set(wanted) - pictures.keys())

    def _keep(self, key: str, picture: Image) -> None:
        if key not in self._pictures:
            self._size += _bytes(picture)
        self._pictures[key] = picture
        self._pictures.move_to_end(key)
        while self._size > self._limit:
            self._size -= _bytes(self._pictures.popitem(last=False)[1])


def _bytes(picture: Image) -> int:
    return picture.width * picture.height * len(picture.getbands())


REMEMBERED = 2**30  # bytes of references and masks
log = logging.getLogger("uvicorn.error")


class Refused(Exception):
    """A request that gets no scores: status, one line, and with 409 the keys of the pictures to send."""

    def __init__(self, status: int, error: str, missing: list[str] | None = None):
        super().__init__(error)
        self.status, self.refusal = status, Refusal(error=error, missing=missing or [])


class Desk:
    """One reward: scores one request at a time, in the order of arrival."""

    def __init__(self, name: str, reward: Reward):
        self.name, self.reward, self.turn = name, reward, asyncio.Lock()
        self.info = RewardInfo(axis=reward.axis, unit=reward.unit, checkpoint=reward_fingerprint(reward))

    @torch.no_grad()
    def score(self, images_NHWC: Tensor, batch: Batch) -> Scores:
        try:
            scores_N = scored(self.name, self.reward, images_NHWC, batch)
        except UserError as error:
            log.exception("reward %r failed", self.name)
            raise Refused(500, " ".join(str(error).split())) from error
        report = {key: number(value) for key, value in self.reward.report().items()}
        scores = [number(value) for value in scores_N.tolist()]
        return Scores(scores=scores, report=report, checkpoint=self.info.checkpoint, versions=versions())


def create_app(
    rewards: Mapping[str, Reward], *, max_body: int, token: str = "", remembered: int = REMEMBERED
) -> FastAPI:
    """The application. ``max_body``: bytes of a request. ``token``: what every request must bear; empty for none."""
    desks = {name: Desk(name, reward) for name, reward in rewards.items()}
    infos = {name: desk.info for name, desk in desks.items()}
    health = Health(ready=True, protocol=PROTOCOL, rewards=infos, versions=versions(), max_body=max_body)
    store = PictureStore(remembered)

    async def check_token(request: Request) -> None:
        given = request.headers.get("authorization", "").encode("latin-1")  # the bytes as they came
        if token and not hmac.compare_digest(given, f"Bearer {token}".encode()):
            raise Refused(401, "the token is missing or wrong")

    app = FastAPI(openapi_url=None, dependencies=[Depends(check_token)])  # no pages that describe it

    @app.exception_handler(Refused)
    async def refuse(request: Request, refused: Refused) -> JSONResponse:
        return JSONResponse(refused.refusal.model_dump(), refused.status)

    @app.get("/health")
    async def get_health() -> Health:
        return health

    @app.post("/score")
    async def post_score(request: Request) -> Scores:
        body = await _read_body(request, max_body)
        desk, images_NHWC, batch = await run_in_threadpool(_parse, body, desks, store)
        async with desk.turn:
            if await request.is_disconnected():  # it gave up while it waited
                raise Refused(408, "the client is gone")
            return await run_in_threadpool(desk.score, images_NHWC, batch)

    return app


async def _read_body(request: Request, limit: int) -> bytes:
    """The request's body, counted while it is read: Content-Length may be missing or false."""
    too_large = Refused(413, f"the request is larger than the {limit} bytes that this server takes")
    if int(request.headers.get("content-length", "0")) > limit:
        raise too_large
    body = bytearray()
    async for part in request.stream():
        if len(body) + len(part) > limit:
            raise too_large
        body += part
    return bytes(body)


def _parse(body: bytes, desks: Mapping[str, Desk], store: PictureStore) -> tuple[Desk, Tensor, Batch]:
    """Who scores, and what. Raises Refused."""
    try:
        message = ScoreRequest.model_validate_json(body)
        if message.reward not in desks:
            raise Refused(404, f"no reward {message.reward!r} here; there is {', '.join(desks)}")
        pictures, missing = store.resolve(named_pictures(message), unpack_pictures(message.sent))
        if missing:
            raise Refused(409, "unknown pictures: send them", missing)
        return desks[message.reward], unpack_images(message.pictures), read_batch(message, pictures)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise Refused(422, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except ValueError as error:
        raise Refused(422, " ".join(str(error).split())) from error
