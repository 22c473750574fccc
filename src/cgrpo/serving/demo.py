"""The page of ``cgrpo demo``: a reference and a prompt in, pictures of the base and of the trained policy out."""

from __future__ import annotations

import base64
import binascii
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Annotated

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, JSONResponse
from jinja2 import Environment, StrictUndefined
from PIL import Image
from pydantic import BaseModel, Field

from cgrpo.errors import UserError
from cgrpo.pictures import read_picture
from cgrpo.rewards.vlm.rubrics import data_url

Draw = Callable[[str, Sequence[Image.Image], Sequence[int]], Mapping[str, Sequence[Image.Image]]]
"""(prompt, references, seeds) -> pictures by the policy's name, one per seed. Raises UserError."""

LARGEST = 2**24  # characters of a reference as it is sent
PIXELATED = 64  # pictures up to this size are shown pixel by pixel


@dataclass(frozen=True)
class Example:
    """What the page offers to start with."""

    prompt: str
    references: Sequence[Image.Image]


class Request(BaseModel):
    """What the page sends. ``references`` are data addresses of picture files."""

    prompt: Annotated[str, Field(max_length=10_000)]
    references: Annotated[list[Annotated[str, Field(max_length=LARGEST)]], Field(max_length=8)]
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    count: Annotated[int, Field(ge=1, le=8)] = 2


def create_demo(title: str, draw: Draw, examples: Sequence[Example]) -> FastAPI:
    """The application: GET / is the page, POST /pictures draws. Requests are drawn one after another."""
    app, turn = FastAPI(openapi_url=None), threading.Lock()
    page = _page(title, examples)

    @app.get("/")
    def show() -> HTMLResponse:
        return HTMLResponse(page)

    @app.post("/pictures")
    def pictures(request: Request) -> JSONResponse:
        try:
            if not request.prompt.strip():
                raise UserError("the prompt is empty", "say what the picture should show")
            references = [_read(address, n) for n, address in enumerate(request.references, 1)]
            with turn:
                drawn = draw(request.prompt, references, range(request.seed, request.seed + request.count))
        except UserError as error:
            return JSONResponse({"error": str(error)}, 400)
        return JSONResponse({"rows": [[name, [data_url(one) for one in made]] for name, made in drawn.items()]})

    return app


def _page(title: str, examples: Sequence[Example]) -> str:
    room = resources.files("cgrpo")
    text = (room / "serving" / "demo.html.j2").read_text(encoding="utf-8")
    style = (room / "evaluation" / "show" / "page.css").read_text(encoding="utf-8")
    offered = [{"prompt": one.prompt, "references": [data_url(r) for r in one.references]} for one in examples]
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(text)
    return template.render(title=title, style=style, examples=offered, pixelated=PIXELATED)


def _read(address: str, number: int) -> Image.Image:
    try:
        content = base64.b64decode(re.sub("^data:[^,]*,", "", address), validate=True)
    except binascii.Error:
        raise UserError(f"reference {number}: no picture file", "choose another") from None
    return read_picture(content, f"reference {number}")
