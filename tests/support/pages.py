"""Pages parsed: those that cgrpo writes, and those of the documentation."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

EMPTY = ("meta", "img", "input", "link", "br", "wbr")  # tags that are never closed


class Page(HTMLParser):
    """Fails where tags aren't closed in order. ``text`` is what is seen; ``loads`` what a browser would fetch."""

    def __init__(self, source: str):
        super().__init__()
        self.open: list[tuple[str, str]] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.loads: list[str | None] = []
        self.text, self._data = "", ""
        self.feed(source)
        assert self.open == []

    @property
    def ids(self) -> list[str | None]:
        return [value for name, value in self.attributes if name == "id"]

    @property
    def data(self) -> Any:
        """The JSON inside the element of id "data"."""
        return json.loads(self._data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in EMPTY:
            self.open.append((tag, dict(attrs).get("id") or ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self.loads += [value for name, value in attrs if name in ("src", "srcset") or (tag, name) == ("link", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        tag, name = self.open[-1] if self.open else ("", "")
        if name == "data":
            self._data += data
        elif tag not in ("", "style", "script"):
            self.text += data


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """(language, content) of every fenced block."""
    for match in re.finditer(r"^ *```(\w*)\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE):
        yield match[1], match[2]


def commands(text: str) -> Iterator[list[str]]:
    """The arguments of every cgrpo that a page tells to type, whatever starts it."""
    for language, content in blocks(text):
        if language not in ("", "sh", "bash", "console"):
            continue
        for line in content.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|;|\|", line):
                try:
                    words = shlex.split(part, comments=True)
                except ValueError:  # a line of a text, not of a shell
                    continue
                if words[:1] == ["cgrpo"]:
                    yield words[1:]
                elif "-m" in words and words[words.index("-m") + 1 : words.index("-m") + 2] == ["cgrpo"]:
                    yield words[words.index("-m") + 2 :]
