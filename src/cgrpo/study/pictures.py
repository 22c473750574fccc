"""Pictures as they are served: anonymous, of one format and size, and the two of a pair of equal length in bytes."""

import io
import os
import secrets
import struct
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cgrpo.files import reading
from cgrpo.fingerprint import of_bytes
from cgrpo.pictures import opened, read_picture, upright
from cgrpo.study.manifest import PICTURES, Arm, Item, ItemKind

LONGEST = 1024  # pixels of a side
PADDING = b"paDd"  # a private PNG chunk that every reader skips
END = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
Size = tuple[int, int]


def common_size(files: Sequence[Path]) -> Size:
    """The commonest size (width, height) of ``files``, scaled to at most 1024 pixels: what all are shown in."""
    sizes: Counter[Size] = Counter()
    for file in files:
        with opened(file, file) as picture:
            sizes[upright(picture).size] += 1
    width, height = max(sizes, key=lambda size: (sizes[size], size))
    scale = min(1.0, LONGEST / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def load(file: Path) -> Image.Image:
    """RGB. Raises UserError."""
    with reading(file):
        return read_picture(file.read_bytes(), file)


def whole(picture: Image.Image, size: Size) -> Image.Image:
    """All of the picture in ``size``, on white where its shape is another."""
    if picture.size == size:
        return picture
    scale = min(size[0] / picture.width, size[1] / picture.height)
    inner = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))
    sheet = Image.new("RGB", size, "white")
    sheet.paste(inner, ((size[0] - inner.width) // 2, (size[1] - inner.height) // 2))
    return sheet


def filled(picture: Image.Image, size: Size) -> Image.Image:
    """The picture's middle, filling ``size``: a photograph among generated pictures has no borders that tell."""
    scale = max(size[0] / picture.width, size[1] / picture.height)
    width, height = min(picture.width, size[0] / scale), min(picture.height, size[1] / scale)
    left, top = (picture.width - width) / 2, (picture.height - height) / 2
    return picture.resize(size, box=(left, top, left + width, top + height))


def reference(picture: Image.Image) -> Image.Image:
    """In its own shape, at most 1024 pixels."""
    picture.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    return picture


def damaged(picture: Image.Image, seed: int) -> Image.Image:
    """Under strong noise: a gold answer of quality."""
    clean_HWC = np.asarray(picture, dtype=np.float32)
    noise_HWC = np.random.default_rng(seed).normal(0, 90, clean_HWC.shape)
    return Image.fromarray((0.5 * clean_HWC + 64 + noise_HWC).clip(0, 255).astype(np.uint8))


class Shelf:
    """The folder of anonymous pictures, and their hashes by id; makes items of pictures that it adds."""

    def __init__(self, folder: Path):
        self.folder = folder / PICTURES
        self.hashes: dict[str, str] = {}
        self.folder.mkdir(parents=True)

    def add(self, pictures: Sequence[Image.Image]) -> tuple[str, ...]:
        """Their new ids. Together they are of equal length, so that no header tells one from the other."""
        encoded = [_png(picture) for picture in pictures]
        longest = max(map(len, encoded))
        return tuple(self._write(_padded(content, longest - len(content))) for content in encoded)

    def item(
        self,
        kind: ItemKind,
        prompt: str,
        references: Sequence[Path],
        shown: Sequence[Image.Image],
        arms: Sequence[Arm],
        subject: str,
        prompt_index: int | None = None,
        gold: Mapping[str, Any] | None = None,
        explanation: str = "",
    ) -> Item:
        """An item with a new id, its references read from files."""
        ids = tuple(self.add([reference(load(file))])[0] for file in references)
        name = secrets.token_hex(8)
        shown_ids = self.add(shown)
        return Item(name, kind, prompt, ids, shown_ids, tuple(arms), subject, prompt_index, gold or {}, explanation)

    def _write(self, content: bytes) -> str:
        name = secrets.token_hex(16)
        file = self.folder / f"{name}.png"
        file.write_bytes(content)
        os.utime(file, (0, 0))  # nor does the order in which they were made
        self.hashes[name] = of_bytes(content)
        return name


def _png(picture: Image.Image) -> bytes:
    """Pixels alone: no metadata, no profile."""
    bare = Image.fromarray(np.asarray(picture.convert("RGB")))
    buffer = io.BytesIO()
    bare.save(buffer, format="PNG", compress_level=9)
    return buffer.getvalue()


def _padded(content: bytes, missing: int) -> bytes:
    """The same picture, longer by ``missing`` and one empty chunk, which every picture gets."""
    body = PADDING + bytes(missing)
    chunk = struct.pack(">I", missing) + body + struct.pack(">I", zlib.crc32(body))
    return content.removesuffix(END) + chunk + END
