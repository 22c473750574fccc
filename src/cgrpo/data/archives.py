"""Pictures inside containers: ``data.zip!/folder/0.png`` is a path like any other; .zip, uncompressed .tar, .parquet.

Of a parquet file ``data.parquet!/17/image`` is the picture in row 17 (from 0) of column image, ``17/images/0`` the
first in a column of lists, and ``17/image/left`` or ``right`` a half of a composite (Subjects200K's).

Nothing is unpacked: a set of 17 GB would need as much room again. An archive is opened, and its table of contents
read, once per process.
"""

import functools
import io
import os
import posixpath
import re
import tarfile
import threading
import unicodedata
import zipfile
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any

from PIL.Image import Image

from cgrpo.data.columns import Place, Table
from cgrpo.errors import UserError
from cgrpo.files import reading
from cgrpo.pictures import Alpha, opened, read_picture

INSIDE = "!/"
MOST_PADDING = 1 << 20  # zeros at a tar's end; programs write 10 kB or less
COMPOSITE = (1056, 528)  # pixels of Subjects200K's pictures, each of two halves
HALVES = {"left": (8, 8, 520, 520), "right": (528, 8, 1040, 520)}
_CONTAINED = re.compile(r"(.+?\.(?:zip|tar|parquet))!/(.*)", re.IGNORECASE | re.DOTALL)


class Archive:
    """An open zip or tar; safe for threads.

    names     its files by name, in its order
    repeated  the files of a tar that are in it more than once; each is the last of its name
    """

    def __init__(self, path: Path):
        self.names: dict[str, Any] = {}
        self.repeated: frozenset[str] = frozenset()
        self._lock = threading.Lock()
        with reading(path, "fetch it anew", zipfile.BadZipFile, tarfile.TarError, NotImplementedError):
            if path.suffix.lower() == ".zip":
                self._file: zipfile.ZipFile | tarfile.TarFile = zipfile.ZipFile(path)
                self.names = {_plain(_spelt(item)): item for item in self._file.infolist() if not item.is_dir()}
                return
            self._file = tarfile.open(path, "r:")  # noqa: SIM115 - stays open
            items = self._file.getmembers()
            _refuse_more(path, self._file.offset)
            self.names = _linked(items)
            counts = Counter(_plain(item.name) for item in items if item.isfile())
            self.repeated = frozenset(name for name, count in counts.items() if count > 1)

    def has(self, name: str) -> bool:
        return _plain(name) in self.names

    def length(self, name: str) -> int:
        item = self.names[_plain(name)]
        return item.file_size if isinstance(item, zipfile.ZipInfo) else item.size

    def read(self, name: str) -> bytes:
        item = self.names[_plain(name)]
        with self._lock:
            if isinstance(self._file, zipfile.ZipFile):
                return self._file.read(item)
            file = self._file.extractfile(item)
            assert file is not None  # it is a regular file
            return file.read()


def _plain(name: str) -> str:
    """A member's name as all are compared: ``tar cf x.tar .`` writes ./a.png, ``tar -P`` /a.png, Windows b\\a.png, and
    a Mac writes accents as characters of their own."""
    return unicodedata.normalize("NFC", str(PurePosixPath(name.replace("\\", "/"))).lstrip("/"))


def _spelt(item: zipfile.ZipInfo) -> str:
    """A member's name; programs on a Mac write UTF-8 without the flag that says so."""
    try:
        return item.filename if item.flag_bits & 0x800 else item.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return item.filename


def _refuse_more(path: Path, end: int) -> None:
    """Raise if a tar continues after its last member, which ends at ``end``: every reader stops there."""
    with path.open("rb") as file:
        file.seek(end)
        rest = file.read(MOST_PADDING)
    if rest.strip(b"\0"):
        raise UserError(f"{path}: continues after its end, as several tars strung together do", "give each as a file")
    if len(rest) == MOST_PADDING:
        raise ValueError("it ends in more than a megabyte of zeros, as a broken-off download does")


def _linked(items: list[tarfile.TarInfo]) -> dict[str, tarfile.TarInfo]:
    """The files of a tar by name, and by the names of links to them: tar keeps a file with two names once."""
    files, links = {}, {}
    for item in items:
        if item.isfile():
            files[_plain(item.name)] = item
        elif item.islnk() or item.issym():
            place = posixpath.dirname(item.name) if item.issym() else ""
            links[_plain(item.name)] = _plain(posixpath.normpath(posixpath.join(place, item.linkname)))
    for name, target in links.items():
        for _ in range(8):  # links to links; they may lead in a circle
            target = links.get(target, target)
        if target in files:
            files[name] = files[target]
    return files


class Cells:
    """The pictures of a parquet file under names as archives' members have them."""

    def __init__(self, path: Path):
        self.table = Table(path)

    def has(self, name: str) -> bool:
        cell = self._find(name)
        return cell.is_file() if isinstance(cell, Path) else cell is not None

    def length(self, name: str) -> int:
        return len(self.read(name))

    def read(self, name: str) -> bytes:
        cell = self._find(name)
        assert cell is not None
        content = cell.read_bytes() if isinstance(cell, Path) else cell
        side = name.rpartition("/")[2]
        return _half(content, side, f"{self.table.path}{INSIDE}{name}") if side in HALVES else content

    def _find(self, name: str) -> bytes | Path | None:
        row, _, rest = name.partition("/")
        column, _, part = rest.partition("/")
        if not row.isdecimal() or not (part in ("", *HALVES) or part.isdecimal()):
            return None
        return self.table.find(Place(int(row), column, int(part) if part.isdecimal() else None))


def _half(content: bytes, side: str, name: str) -> bytes:
    """The ``side`` ("left" or "right") of a composite, as BMP: PNG costs five times as much. Raises UserError."""
    with opened(content, name) as whole:
        if whole.size != COMPOSITE:
            size, wanted = (f"{width} x {height}" for width, height in (whole.size, COMPOSITE))
            raise UserError(f"{name}: a composite of {size} pixels; only {wanted} can be cut")
        part = whole.crop(HALVES[side])
    out = io.BytesIO()
    (part if part.mode in ("L", "RGB") else part.convert("RGB")).save(out, "BMP")
    return out.getvalue()


@functools.lru_cache(maxsize=64)
def _opened(path: Path, process: int) -> Archive | Cells:
    """``process``: a forked child must not share its parent's place in the file."""
    return Cells(path) if path.suffix.lower() == ".parquet" else Archive(path)


def archive(path: Path) -> Archive:
    """An open zip or tar. Raises UserError if it can't be opened."""
    container = _opened(path, os.getpid())
    assert isinstance(container, Archive)
    return container


def table(path: Path) -> Table:
    """An open parquet file. Raises UserError if it can't be opened, or pyarrow is missing."""
    container = _opened(path, os.getpid())
    assert isinstance(container, Cells)
    return container.table


def within(archive: Path, member: str) -> Path:
    """The path of a member of an archive."""
    return Path(f"{archive}{INSIDE}{member}")


def _split(path: Path) -> tuple[Path, str] | None:
    parts = _CONTAINED.fullmatch(str(path)) if INSIDE in str(path) else None
    return (Path(parts[1]), parts[2]) if parts else None


def is_private(path: Path) -> bool:
    """Whether it lies in a container whose rows can't share a picture (parquet, a WebDataset's tar): copies abound."""
    parts = _split(path)
    return parts is not None and parts[0].suffix.lower() != ".zip"


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
        problem = "is a folder" if path.is_dir() else "no such picture"
        raise UserError(f"{path}: {problem}", "name a picture; names in a manifest are relative to it")
    with reading(path, "", Exception):  # zlib.error, LZMAError, RuntimeError of a password: whatever archives raise
        return path.read_bytes() if parts is None else _opened(parts[0], os.getpid()).read(parts[1])


def open_picture(path: Path, alpha: Alpha = "white") -> Image:
    """The picture in a file or member, as ``pictures.read_picture`` reads it. Raises UserError."""
    return read_picture(read_bytes(path), path, alpha)


class Files:
    """The files of a data set by name, in a folder or in the zips that lie in it (SynCD before it is unpacked).

    ``root`` None: names are whole paths. If the first file is in ``root``/images alone, all are, as Flow-Factory's.
    """

    def __init__(self, root: Path | None):
        self.root = root or Path()
        self._images = self.root / "images" if root and (root / "images").is_dir() else None
        self._zips = sorted(root.glob("*.zip")) if root and root.is_dir() else []

    @functools.cached_property
    def _packed(self) -> dict[str, Path]:
        """Names in the zips -> their paths; the first zip that has a name counts."""
        packed: dict[str, Path] = {}
        for zipped in self._zips:
            for name in archive(zipped).names:
                packed.setdefault(name, within(zipped, name))
        return packed

    def find(self, name: str) -> Path | None:
        """Where ``name`` is, if anywhere."""
        path = self.root / name
        if is_file(path):
            return path
        return self._packed.get(_plain(name)) if self._zips else None

    def path(self, name: str) -> Path:
        """Where ``name`` is, or would be. Understood are backslashes of a manifest written on Windows, and accents that
        are characters of their own in names on a Mac."""
        plain = name.replace("\\", "/")
        if self._images is not None:
            here, there = is_file(self.root / plain), is_file(self._images / plain)
            self.root = self._images if there and not here else self.root
            self._images = None if here or there else self._images
        accents = [] if name.isascii() else [unicodedata.normalize("NFC", plain), unicodedata.normalize("NFD", plain)]
        spellings = list(dict.fromkeys([name, plain, *accents]))
        if self._zips or len(spellings) > 1:
            for spelling in spellings:
                if path := self.find(spelling):
                    return path
        return self.root / plain
