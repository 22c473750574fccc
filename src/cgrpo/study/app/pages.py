"""What every page consists of: a template and its values, headers, and forms that our own pages sent.

No page shows a method, a file, or a gold before its lesson is answered.
"""

from collections.abc import Awaitable, Callable, Mapping
from importlib import resources
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from cgrpo.study.manifest import Item, Mode, Study

LABELS: dict[Mode, dict[str, str]] = {
    "pairwise": {"left": "A", "tie": "Tie", "right": "B"},
    "rating": {digit: digit for digit in "012345"},
}
TINY = 64  # pixels: pictures up to this size are shown pixel by pixel

_environment = Environment(
    loader=PackageLoader("cgrpo", "study/app/templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def page(name: str, status: int = 200, /, **values: Any) -> HTMLResponse:
    """A template with what it shows, each value by its name; all text is escaped."""
    return HTMLResponse(_environment.get_template(f"{name}.html.j2").render(values), status)


def static(name: str) -> str:
    """style.css is the report's style and what forms need; keys.js makes keys of answers."""
    room = resources.files("cgrpo")
    text = (room / "study" / "app" / name).read_text(encoding="utf-8")
    if name.endswith(".css"):
        return (room / "evaluation" / "show" / "page.css").read_text(encoding="utf-8") + text
    return text


def shown(study: Study, item: Item, first_on_left: bool, answers: Mapping[str, str]) -> dict[str, Any]:
    """An item as its template takes it, in the order in which it stands on the page."""
    order = item.pictures if first_on_left else item.pictures[::-1]
    names = ["Picture A", "Picture B"] if len(order) == 2 else ["Picture"]
    several = len(item.references) > 1
    references = [f"Reference {n}" if several else "Reference" for n in range(1, len(item.references) + 1)]
    return {
        "prompt": item.prompt,
        "references": list(zip(references, item.references, strict=True)),
        "pictures": list(zip(names, order, strict=True)),
        "questions": study.questions,
        "choices": LABELS[study.mode],
        "answers": answers,
        "tiny": max(study.source["picture size"]) <= TINY,
        "keys": "A, T (tie) or B" if study.mode == "pairwise" else "0 to 5",
    }


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
