"""What no page goes without: headers, forms that are small and come from our own pages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import Request
from starlette.responses import Response

MAX_FORM = 16 * 1024  # bytes; ours have a few hundred
HEADERS = {
    "content-security-policy": "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    # Links bear the rater's token; "no-referrer" would take the origin from forms, too.
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-robots-tag": "noindex",
}


class Refused(Exception):
    """A request that is no rater's doing."""

    def __init__(self, status: int, words: str):
        super().__init__(words)
        self.status, self.words = status, words


async def add_headers(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await answer(request)
    response.headers.update(HEADERS)
    response.headers.setdefault("cache-control", "private, no-cache")  # kept for "back", with what was chosen
    return response


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form that one of our own pages sent, the last of several of one name. Raises Refused."""
    _refuse_strangers(request)
    too_large = Refused(413, "That was too much to be an answer.")
    declared: Any = request.headers.get("content-length", "0")
    if not (declared.isascii() and declared.isdigit()) or len(declared) > 9 or int(declared) > MAX_FORM:
        raise too_large
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_FORM:
            raise too_large
    try:
        return dict(parse_qsl(body.decode("utf-8"), keep_blank_values=True, max_num_fields=32))
    except ValueError:
        raise Refused(400, "That was no form of this study.") from None


def _refuse_strangers(request: Request) -> None:
    """Another site's page may not send our forms, not even from a browser that knows the link."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None and site not in ("same-origin", "none"):
        raise Refused(403, "That form came from another site.")
    if site is None and origin is not None and _host(origin) != request.headers.get("host"):
        raise Refused(403, "That form came from another site.")


def _host(origin: str) -> str | None:
    """Of an Origin header, which may be anything; None where it is no address."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None
