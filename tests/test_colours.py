"""Colours of other spaces, and files whose end was never written."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from cgrpo.errors import UserError
from cgrpo.pictures import read_picture

SEEN = (219, 37, 49)  # what a viewer shows for Display P3's (200, 60, 60)
STORED = (200, 60, 60)


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    held = io.BytesIO()
    picture.save(held, kind, **options)
    return held.getvalue()


@pytest.fixture(scope="module")
def display_p3() -> bytes:
    """A matrix profile with Display P3's primaries (adapted to D50) and gamma 2.2, as ICC.1:2001 lays it out."""

    def number(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    def xyz(*values: float) -> bytes:
        return b"XYZ " + bytes(4) + b"".join(map(number, values))

    gamma = b"curv" + struct.pack(">IIH", 0, 1, round(2.2 * 256)) + bytes(2)
    tags = {
        b"desc": b"desc" + struct.pack(">II", 0, 3) + b"P3" + bytes(79),
        b"cprt": b"text" + bytes(8),
        b"wtpt": xyz(0.9642, 1, 0.8249),
        b"rXYZ": xyz(0.5151, 0.2412, -0.0011),
        b"gXYZ": xyz(0.2919, 0.6922, 0.0419),
        b"bXYZ": xyz(0.1572, 0.0666, 0.7841),
    } | {name: gamma for name in (b"rTRC", b"gTRC", b"bTRC")}
    table, body = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    size = 128 + len(table) + len(body)
    head = struct.pack(">I4sI", size, b"lcms", 0x02100000) + b"mntrRGB XYZ " + bytes(12) + b"acsp" + bytes(28)
    return (head + xyz(0.9642, 1, 0.8249)[8:]).ljust(128, b"\0") + table + body


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("alpha", ["white", "drop"])
def test_a_phones_colours_are_as_a_viewer_shows_them(display_p3: bytes, mode: str, alpha: Any) -> None:
    picture = Image.new("RGB", (4, 4), STORED).convert(mode)
    assert (
        read_picture(encoded(picture, icc_profile=display_p3), "a.png", alpha).convert("RGB").getpixel((0, 0)) == SEEN
    )


def test_alpha_and_palettes_with_a_profile(display_p3: bytes) -> None:
    half = Image.new("RGBA", (4, 4), (*STORED, 128))
    assert read_picture(encoded(half, icc_profile=display_p3), "a.png", "drop").getpixel((0, 0)) == (*SEEN, 128)
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette(STORED)
    assert read_picture(encoded(palette, icc_profile=display_p3), "a.png").getpixel((0, 0)) == SEEN


@pytest.mark.parametrize("kind", ["sRGB", "damaged", "of another mode", "none"])
def test_profiles_that_change_nothing(display_p3: bytes, kind: str) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = {"sRGB": srgb, "damaged": display_p3[:200], "of another mode": display_p3, "none": None}[kind]
    picture = Image.new("L", (4, 4), 102) if kind == "of another mode" else Image.new("RGB", (4, 4), STORED)
    shown = read_picture(encoded(picture, icc_profile=profile), "a.png").getpixel((0, 0))
    assert shown == ((102, 102, 102) if kind == "of another mode" else STORED)


@pytest.mark.parametrize("kind", ["JPEG", "MPO", "WEBP", "AVIF"])
def test_room_on_disk_that_was_never_filled(kind: str) -> None:
    """The lower half was grey, without a word. Zeros after the end are no harm."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    exif = noise.getexif()
    exif[0x0112] = 1
    whole = encoded(noise, kind, **({"save_all": True, "exif": exif} if kind == "MPO" else {}))
    with pytest.raises(UserError, match=r"a.x: can't be read as a picture \(its end is missing: nothing but zeros\)"):
        read_picture(whole[: len(whole) // 2] + bytes(len(whole) // 2), "a.x")
    if kind in ("JPEG", "MPO"):
        assert read_picture(whole + bytes(999), "a.x").size == (64, 64)


def test_eight_bits_kept_in_sixteen() -> None:
    """They were all black."""
    levels = np.array([[0, 100, 255]], np.uint16)
    assert np.asarray(read_picture(encoded(Image.fromarray(levels)), "a.png"))[0, :, 0].tolist() == [0, 100, 255]
