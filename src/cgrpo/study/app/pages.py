"""Templates, and what they are given: no method, no file, no gold before its lesson is answered."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse

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
