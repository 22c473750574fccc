"""Text as people's programs write it, and what a file really is when it is not what its name says."""

import codecs
import json
import re
import unicodedata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

# Byte order marks; UTF-32's begins with UTF-16's, so it comes first.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip
_ADDRESS = re.compile(r"https?://[^\s@?#]+", re.IGNORECASE)


def decoded(content: bytes) -> str:
    """UTF-8, or what a byte order mark says (Excel's and PowerShell's UTF-16). Raises ValueError for anything else."""
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        place = f"byte {content[error.start]:#x} at {error.start}"
        raise ValueError(f"{place} is no {encoding.removesuffix('-sig').upper()}; save it as UTF-8") from None


def is_address(url: str) -> bool:
    """Of a server, by http or https, with a port that there is, and with no user, key or query."""
    try:
        parts = urlsplit(url)
        (parts.hostname or "").encode("idna")  # which refuses an empty part and one of 64 letters
        return bool(url.isprintable() and _ADDRESS.fullmatch(url) and parts.hostname and parts.port != 0)
    except ValueError:  # of a port that there is not, too
        return False


def read_text(path: Path) -> str:
    """The text of a file. Raises OSError, and ValueError as ``decoded``."""
    return decoded(path.read_bytes())


def parse_json(text: str) -> Any:
    """The value of a JSON text. Raises ValueError, also for a key that an object has twice: readers differ on those."""
    try:
        return json.loads(text, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("objects and lists nested too deep") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in table if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} stands there twice; leave one out")
    return table


def is_blank(text: str) -> bool:
    """Whether a reader sees nothing: blanks, control characters, characters of no width."""
    return all(unicodedata.category(char)[0] in "CZ" for char in text)


def cure_for(start: bytes, cure: str) -> str:
    """``cure`` for a file that can't be read, or a better one where its first bytes say what it really is."""
    if start.startswith(b"version https://git-lfs"):
        return "it is Git LFS's pointer to the file: git lfs pull fetches that"
    if start.startswith(b"\x1f\x8b"):
        return "it is gzipped: gunzip it"
    if start.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        return "it is a web page, saved in place of the file: download it anew"
    return cure


def first_bytes(path: Path) -> bytes:
    """Enough of a file for ``cure_for``; none if it can't be read."""
    try:
        with path.open("rb") as file:
            return file.read(64)
    except OSError:
        return b""
