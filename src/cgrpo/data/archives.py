"""Pictures inside archives: ``data.zip!/folder/0.png`` is a path like any other; .zip, uncompressed .tar, .parquet.

Of a parquet file ``data.parquet!/17/image`` is the picture in row 17 (from 0) of column image, ``17/images/0`` the
first in a column of lists, and ``17/image/left`` or ``right`` a half of a composite (composites.py).

Nothing is unpacked to stay: a set of 17 GB would need as much room again. An archive is opened, and its table of
contents read, once per process.
"""

from __future__ import annotations

import functools
import os
import posixpath
import re
import tarfile
import threading
import unicodedata
import zipfile
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Literal

from PIL.Image import Image

from cgrpo.data.columns import Place, Table
from cgrpo.data.composites import HALVES, half
from cgrpo.errors import UserError
from cgrpo.pictures import Alpha, read_picture
from cgrpo.text import cure_for, first_bytes

INSIDE = "!/"
MOST_PADDING = 1 << 20  # zeros at a tar's end; programs write 10 kB or less
_ARCHIVE = re.compile(r"(.+?\.(?:zip|tar|parquet))!/(.*)", re.IGNORECASE | re.DOTALL)


class _Archive:
    """One open archive; safe for threads."""

    def __init__(self, path: Path):
        self._lock = threading.Lock()
        try:
            if path.suffix.lower() == ".zip":
                self._zip, self._tar = zipfile.ZipFile(path), None
                self.names = {_member(_spelt(item)): item for item in self._zip.infolist() if not item.is_dir()}
                self.repeated: frozenset[str] = frozenset()
            else:
                self._zip, self._tar = None, tarfile.open(path, "r:")  # noqa: SIM115 - stays open
                items = self._tar.getmembers()
                _refuse_more(path, self._tar.offset)
                self.names = _linked(items)
                counts = Counter(_member(item.name) for item in items if item.isfile())
                self.repeated = frozenset(name for name, count in counts.items() if count > 1)
        except (OSError, zipfile.BadZipFile, tarfile.TarError, ValueError, NotImplementedError) as error:
            cure = cure_for(first_bytes(path), "fetch it anew")
            raise UserError(f"{path}: can't be opened as an archive ({error}); {cure}") from error

    def has(self, name: str) -> bool:
        return _member(name) in self.names

    def length(self, name: str) -> int:
        item = self.names[_member(name)]
        return item.file_size if isinstance(item, zipfile.ZipInfo) else item.size

    def read(self, name: str) -> bytes:
        item = self.names[_member(name)]
        with self._lock:
            if self._zip is not None:
                assert isinstance(item, zipfile.ZipInfo)
                return self._zip.read(item)
            assert self._tar is not None and isinstance(item, tarfile.TarInfo)
            file = self._tar.extractfile(item)
            assert file is not None
            return file.read()


def _member(name: str) -> str:
    """A member's name as all are compared: ``tar cf x.tar .`` writes ./a.png, ``tar -P`` /a.png, programs on Windows
    b\\a.png, and those on a Mac write accents as letters of their own."""
    return unicodedata.normalize("NFC", str(PurePosixPath(name.replace("\\", "/"))).lstrip("/"))


def _spelt(item: zipfile.ZipInfo) -> str:
    """Its name; programs on a Mac write UTF-8 without the flag that says so."""
    try:
        return item.filename if item.flag_bits & 0x800 else item.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return item.filename


def _refuse_more(path: Path, end: int) -> None:
    """Of a tar whose members end at ``end``: raises where it goes on, for every reader stops there."""
    with path.open("rb") as file:
        file.seek(end)
        rest = file.read(MOST_PADDING)
    if rest.strip(b"\0"):
        raise UserError(f"{path}: goes on after its end, as several tars strung together do; give each as its own file")
    if len(rest) == MOST_PADDING:
        raise ValueError("it ends in more than a megabyte of zeros, as a download that was broken off does")


def _linked(items: list[tarfile.TarInfo]) -> dict[str, tarfile.TarInfo]:
    """The files of a tar by name, under the names of links to them too: tar keeps a file with two names once."""
    found, links = {}, {}
    for item in items:
        name = _member(item.name)
        if item.isfile():
            found[name] = item
        elif item.islnk() or item.issym():
            place = posixpath.dirname(item.name) if item.issym() else ""
            links[name] = _member(posixpath.normpath(posixpath.join(place, item.linkname)))
    for name, target in links.items():
        for _ in range(8):  # links to links; they may lead in a circle
            target = links.get(target, target)
        if target in found:
            found[name] = found[target]
    return found


class _Cells:
    """The pictures of a parquet file under the names that archives' members have."""

    def __init__(self, path: Path):
        self.table = Table(path)

    def has(self, name: str) -> bool:
        found = self._find(name)
        return found.is_file() if isinstance(found, Path) else found is not None

    def length(self, name: str) -> int:
        return len(self.read(name))

    def read(self, name: str) -> bytes:
        found = self._find(name)
        assert found is not None
        content = found.read_bytes() if isinstance(found, Path) else found
        side = name.rpartition("/")[2]
        return half(content, side, f"{self.table.path}{INSIDE}{name}") if side in HALVES else content

    def _find(self, name: str) -> bytes | Path | None:
        row, _, rest = name.partition("/")
        column, _, part = rest.partition("/")
        if not row.isdecimal() or not (part in ("", *HALVES) or part.isdecimal()):
            return None
        return self.table.find(Place(int(row), column, int(part) if part.isdecimal() else None))


@functools.lru_cache(maxsize=64)
def _opened(path: Path, process: int) -> _Archive | _Cells:
    """``process``: a forked child must not share its parent's place in the file."""
    return _Cells(path) if path.suffix.lower() == ".parquet" else _Archive(path)


def members(archive: Path) -> list[str]:
    """The files in a zip or tar, in its order. Raises UserError if it can't be opened."""
    opened = _opened(archive, os.getpid())
    assert isinstance(opened, _Archive)
    return list(opened.names)


def repeated(archive: Path) -> frozenset[str]:
    """The files of a tar that are in it more than once; each is the last of its name. Raises UserError."""
    opened = _opened(archive, os.getpid())
    assert isinstance(opened, _Archive)
    return opened.repeated


def table(path: Path) -> Table:
    """An opened parquet file. Raises UserError if it can't be opened, or pyarrow is missing."""
    opened = _opened(path, os.getpid())
    assert isinstance(opened, _Cells)
    return opened.table


def within(archive: Path, member: str) -> Path:
    """The path of a member of an archive."""
    return Path(f"{archive}{INSIDE}{member}")


def _split(path: Path) -> tuple[Path, str] | None:
    parts = _ARCHIVE.fullmatch(str(path)) if INSIDE in str(path) else None
    return (Path(parts[1]), parts[2]) if parts else None


def is_private(path: Path) -> bool:
    """Whether it lies in a container whose rows can't share a picture (parquet, a WebDataset's tar): copies abound."""
    parts = _split(path)
    return parts is not None and parts[0].suffix.lower() != ".zip"


def is_member(path: Path) -> bool:
    """Whether it leads into an archive."""
    return _split(path) is not None


def container(path: Path) -> Path:
    """The file on disk that holds it: the archive, or itself."""
    parts = _split(path)
    return parts[0] if parts else path


def is_file(path: Path) -> bool:
    """Whether there is such a file, or such a member of an archive."""
    parts = _split(path)
    if parts is None:
        try:
            return path.is_file()
        except OSError:  # a name longer than any file's
            return False
    return parts[0].is_file() and _opened(parts[0], os.getpid()).has(parts[1])


def length(path: Path) -> int:
    """Bytes of a file or member that is there."""
    parts = _split(path)
    if parts is None:
        return path.stat().st_size
    return _opened(parts[0], os.getpid()).length(parts[1])


def read_bytes(path: Path) -> bytes:
    """The content of a file or member. Raises UserError if it is missing or damaged."""
    parts = _split(path)
    if not is_file(path):
        raise UserError(f"{path}: no such picture; check the path (it is relative to the manifest that names it)")
    try:
        return path.read_bytes() if parts is None else _opened(parts[0], os.getpid()).read(parts[1])
    except (OSError, zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError, RuntimeError) as error:
        cure = "unpack the archive with its password" if "encrypted" in str(error) else "fetch it anew"
        raise UserError(f"{path}: can't be read ({error}); {cure}") from error
    except UserError:
        raise
    except Exception as error:  # zlib.error, lzma.LZMAError: whatever the archive's compression raises
        raise UserError(f"{path}: can't be unpacked ({error}); fetch the archive anew") from error


def open_picture(path: Path, alpha: Alpha = "white") -> Image:
    """The picture in a file or member, as ``pictures.read_picture`` reads it. Raises UserError."""
    return read_picture(read_bytes(path), path, alpha)


class Files:
    """The files of a data set by name, in a folder or in the zips that lie in it (SynCD before it is unpacked).

    ``root`` None: names are whole paths.
    """

    def __init__(self, root: Path | None):
        self.root = root or Path()
        self._zips = sorted(root.glob("*.zip")) if root and root.is_dir() else []

    @functools.cached_property
    def packed(self) -> dict[str, Path]:
        """Names in the zips -> their paths; the first zip that has a name counts."""
        found: dict[str, Path] = {}
        for archive in self._zips:
            for name in members(archive):
                found.setdefault(name, within(archive, name))
        return found

    def find(self, name: str) -> Path | None:
        """Where ``name`` is, if anywhere."""
        path = self.root / name
        if is_file(path):
            return path
        return self.packed.get(_member(name)) if self._zips else None

    def path(self, name: str) -> Path:
        """Where ``name`` is, or would be; understood are backslashes of a manifest written on Windows, and accents that
        are letters of their own in names on a Mac."""
        plain = name.replace("\\", "/")
        spelt = [name, plain] if name.isascii() else [name, plain, *(_normal(form, plain) for form in ("NFC", "NFD"))]
        spellings = list(dict.fromkeys(spelt))
        if self._zips or len(spellings) > 1:
            found = next(filter(None, map(self.find, spellings)), None)
            if found is not None:
                return found
        return self.root / plain


def _normal(form: Literal["NFC", "NFD"], name: str) -> str:
    return unicodedata.normalize(form, name)
