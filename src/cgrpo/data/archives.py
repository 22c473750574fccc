"""Pictures inside archives: ``data.zip!/folder/0.png`` is a path like any other; .zip and uncompressed .tar.

Nothing is unpacked to stay: a set of 17 GB would need as much room again. An archive is opened, and its table of
contents read, once per process.
"""

from __future__ import annotations

import functools
import os
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cgrpo.errors import UserError

INSIDE = "!/"
ARCHIVES = (".zip", ".tar")


class _Archive:
    """One open archive; safe for threads."""

    def __init__(self, path: Path):
        self._lock = threading.Lock()
        try:
            if path.suffix.lower() == ".zip":
                self._zip, self._tar = zipfile.ZipFile(path), None
                self.names = {item.filename: item for item in self._zip.infolist() if not item.is_dir()}
            else:
                self._zip, self._tar = None, tarfile.open(path, "r:")  # noqa: SIM115 - stays open
                self.names = {item.name: item for item in self._tar.getmembers() if item.isfile()}
        except (OSError, zipfile.BadZipFile, tarfile.TarError) as error:
            raise UserError(f"{path}: can't be opened as an archive ({error}); fetch it anew") from error

    def read(self, name: str) -> bytes:
        item = self.names[name]
        with self._lock:
            if self._zip is not None:
                assert isinstance(item, zipfile.ZipInfo)
                return self._zip.read(item)
            assert self._tar is not None and isinstance(item, tarfile.TarInfo)
            file = self._tar.extractfile(item)
            assert file is not None
            return file.read()


@functools.lru_cache(maxsize=64)
def _opened(path: Path, process: int) -> _Archive:
    """``process``: a forked child must not share its parent's place in the file."""
    return _Archive(path)


def members(archive: Path) -> list[str]:
    """The files in an archive, in its order. Raises UserError if it can't be opened."""
    return list(_opened(archive, os.getpid()).names)


def within(archive: Path, member: str) -> Path:
    """The path of a member of an archive."""
    return Path(f"{archive}{INSIDE}{member}")


def _split(path: Path) -> tuple[Path, str] | None:
    archive, inside, member = str(path).partition(INSIDE)
    return (Path(archive), member) if inside and archive.lower().endswith(ARCHIVES) else None


def is_file(path: Path) -> bool:
    """Whether there is such a file, or such a member of an archive."""
    parts = _split(path)
    if parts is None:
        return path.is_file()
    return parts[0].is_file() and parts[1] in _opened(parts[0], os.getpid()).names


def length(path: Path) -> int:
    """Bytes of a file or member that is there."""
    parts = _split(path)
    if parts is None:
        return path.stat().st_size
    item = _opened(parts[0], os.getpid()).names[parts[1]]
    return item.file_size if isinstance(item, zipfile.ZipInfo) else item.size


def read_bytes(path: Path) -> bytes:
    """The content of a file or member. Raises UserError if it is missing or damaged."""
    parts = _split(path)
    if not is_file(path):
        raise UserError(f"{path}: no such picture; check the path (it is relative to the manifest that names it)")
    try:
        return path.read_bytes() if parts is None else _opened(parts[0], os.getpid()).read(parts[1])
    except (OSError, zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{path}: can't be read ({error}); fetch it anew") from error
    except Exception as error:  # zlib.error, lzma.LZMAError: whatever the archive's compression raises
        raise UserError(f"{path}: can't be unpacked ({error}); fetch the archive anew") from error


@contextmanager
def on_disk(path: Path) -> Iterator[Path]:
    """``path`` itself or, of a member, a copy that lasts as long as the block; errors name ``path`` either way."""
    if _split(path) is None:
        yield path
        return
    content = read_bytes(path)
    with tempfile.NamedTemporaryFile(suffix=path.suffix) as copy:
        copy.write(content)
        copy.flush()
        try:
            yield Path(copy.name)
        except UserError as error:
            raise UserError(str(error).replace(copy.name, str(path))) from error


class Files:
    """The files of a data set by name, in a folder or in the zips that lie in it (SynCD before it is unpacked)."""

    def __init__(self, root: Path):
        self.root = root
        self._zips = sorted(root.glob("*.zip")) if root.is_dir() else []

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
        return self.packed.get(name) if self._zips else None

    def path(self, name: str) -> Path:
        """Where ``name`` is, or would be."""
        return (self.find(name) if self._zips else None) or self.root / name
