"""Whether two pictures look the same, told without a model.

A 64-bit difference hash finds candidates, a thumbnail of 8 x 8 mean colours confirms them: re-encoded, resized or
slightly retouched copies pass, the same shape in another colour or a small different thing on an equal ground doesn't.
Mirrored, rotated or cropped copies are not found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

HASH_BITS = 10  # of 64 may differ
COLOUR_LEVELS = 24  # of 255: the largest difference of any thumbnail pixel and channel
_BLOCK = 256


@dataclass(frozen=True)
class Look:
    """``bits``: does each of 8 x 8 grey cells outshine its right neighbour; ``colours`` int16 [8 * 8 * 3]."""

    bits: int
    colours: np.ndarray


def look_of(picture: Image.Image) -> Look:
    """The look of a picture; its shape plays no part."""
    small = picture.convert("RGB").resize((72, 64), Image.Resampling.BOX)
    grey = np.asarray(small.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    bits = int.from_bytes(np.packbits(grey[:, :-1] > grey[:, 1:]).tobytes(), "big")
    colours = np.asarray(small.resize((8, 8), Image.Resampling.BOX), dtype=np.int16)
    return Look(bits, colours.reshape(-1))


def alike(looks: Sequence[Look]) -> Iterator[tuple[int, int]]:
    """Pairs (later, earlier) of positions that look the same. Quadratic, at about 5 ns a pair."""
    bits = np.array([look.bits for look in looks], dtype=np.uint64)
    colours = np.stack([look.colours for look in looks]) if looks else np.empty((0, 192), np.int16)
    for start in range(0, len(bits), _BLOCK):
        rows = slice(start, min(start + _BLOCK, len(bits)))
        distance = np.bitwise_count(bits[rows, None] ^ bits[None, : rows.stop])
        for later, earlier in np.argwhere(distance <= HASH_BITS):
            if earlier < later + start:
                difference = np.abs(colours[later + start] - colours[earlier]).max()
                if difference <= COLOUR_LEVELS:
                    yield int(later + start), int(earlier)
