"""Small data sets on disk, for tests of whatever reads them."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The picture as a file of that ``kind``."""
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def png(colour: str | tuple[int, int, int] = "red", side: int = 8) -> bytes:
    """A PNG of one colour."""
    return encoded(Image.new("RGB", (side, side), colour))


def scene(seed: int, side: int = 64) -> Image.Image:
    """Smooth random colours: as different from seed to seed as photos are."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def put(folder: Path, files: Mapping[str, bytes | str]) -> Path:
    """``folder`` with these files in it, by name."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def pack(path: Path, files: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> Path:
    """A .zip or .tar of members by name: their contents, or (type, target) of a tar's links."""
    path.parent.mkdir(parents=True, exist_ok=True)
    members = files.items() if isinstance(files, Mapping) else files
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members:
                archive.writestr(name, content)
        return path
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            item = tarfile.TarInfo(name)
            if isinstance(content, tuple):
                item.type, item.linkname = content
                tar.addfile(item)
            else:
                item.size = len(content)
                tar.addfile(item, io.BytesIO(content))
    return path


def write_rows(path: Path, *rows: Any) -> Path:
    """A manifest of these rows: JSON lines for .jsonl, else a list."""
    lines = path.suffix == ".jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) if lines else json.dumps(rows), encoding="utf-8")
    return path
