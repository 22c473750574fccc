"""Reading pictures as users have them: turned, of every mode and depth, in other colours, damaged."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo
from support.datasets import encoded, scene

from cgrpo.data.archives import open_picture
from cgrpo.errors import UserError
from cgrpo.pictures import read_picture, unread_colours


def history() -> PngInfo:
    """An editor's XMP, packed."""
    text = PngInfo()
    text.add_itxt("XML:com.adobe.xmp", "<history/>" * 200_000, zip=True)
    text.add_text("Comment", "x" * 2_000_000, zip=True)
    return text


RED, GREEN, WHITE = (255, 0, 0), (0, 255, 0), (255, 255, 255)
SEEN = (219, 37, 49)  # what a viewer shows for Display P3's (200, 60, 60)
STORED = (200, 60, 60)


def saved(folder: Path, name: str, picture: Image.Image, **options: Any) -> Image.Image:
    picture.save(folder / name, **options)
    shown = open_picture(folder / name)
    assert shown.mode == "RGB"
    return shown


def test_exif_is_obeyed(tmp_path: Path) -> None:
    picture = Image.new("RGB", (40, 20), RED)
    exif = picture.getexif()
    exif[0x0112] = 6  # the camera was held upright
    assert saved(tmp_path, "a.jpg", picture, exif=exif).size == (20, 40)


def test_palette_and_its_transparency(tmp_path: Path) -> None:
    picture = Image.new("P", (4, 4), 0)
    picture.putpalette([*GREEN, *RED])
    picture.putpixel((1, 0), 1)
    assert saved(tmp_path, "a.png", picture).getpixel((0, 0)) == GREEN
    shown = saved(tmp_path, "b.png", picture, transparency=0)
    assert shown.getpixel((0, 0)) == WHITE and shown.getpixel((1, 0)) == RED


@pytest.mark.parametrize("mode,clear", [("RGBA", (255, 0, 0, 0)), ("LA", (0, 0))])
def test_alpha_lies_on_white(tmp_path: Path, mode: str, clear: tuple[int, ...]) -> None:
    assert saved(tmp_path, "a.png", Image.new(mode, (4, 4), clear)).getpixel((0, 0)) == WHITE


def test_half_alpha_is_blended(tmp_path: Path) -> None:
    assert saved(tmp_path, "a.png", Image.new("RGBA", (4, 4), (0, 0, 0, 51))).getpixel((0, 0)) == (204, 204, 204)


def test_cmyk(tmp_path: Path) -> None:
    red, green, _ = saved(tmp_path, "a.jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0))).getpixel((0, 0))  # type: ignore[misc]
    assert red > 240 and green < 20


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    ramp = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    shown = np.asarray(saved(tmp_path, "a.png", Image.fromarray(ramp)))
    assert shown[0, :, 0].tolist() == [0, 100, 255]


@pytest.mark.parametrize("name", ["a.gif", "a.mpo", "a.webp"])
def test_first_frame(tmp_path: Path, name: str) -> None:
    first, second = Image.new("RGB", (8, 8), RED), Image.new("RGB", (8, 8), GREEN)
    red, green, _ = saved(tmp_path, name, first, save_all=True, append_images=[second]).getpixel((0, 0))  # type: ignore[misc]
    assert red > 240 and green < 20


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_turn_and_mirror(tmp_path: Path, orientation: int) -> None:
    """Where the stored picture's left upper corner, red, is shown: as the EXIF standard says of each value."""
    corners = {1: "left top", 2: "right top", 3: "right bottom", 4: "left bottom"}
    corners |= {5: "left top", 6: "right top", 7: "right bottom", 8: "left bottom"}
    picture = Image.new("RGB", (40, 20), GREEN)
    picture.paste(RED, (0, 0, 5, 5))
    exif = picture.getexif()
    exif[0x0112] = orientation
    shown = saved(tmp_path, "a.png", picture, exif=exif)
    assert shown.size == ((40, 20) if orientation < 5 else (20, 40))
    side, end = corners[orientation].split()
    corner = (0 if side == "left" else shown.width - 1, 0 if end == "top" else shown.height - 1)
    assert shown.getpixel(corner) == RED
    others = {(x, y) for x in (0, shown.width - 1) for y in (0, shown.height - 1)} - {corner}
    assert all(shown.getpixel(other) == GREEN for other in others)
    assert shown.getexif().get(0x0112, 1) == 1  # or whoever saves it has it turned twice


def test_a_phones_two_frame_mpo(tmp_path: Path) -> None:
    """Named .jpg, turned, and no JPEG by its format: what a loader that asks for "JPEG" drops."""
    first, second = Image.new("RGB", (40, 24), RED), Image.new("RGB", (40, 24), GREEN)
    exif = first.getexif()
    exif[0x0112] = 8
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second], exif=exif)
    with Image.open(tmp_path / "a.jpg") as opened:
        assert (opened.format, opened.n_frames) == ("MPO", 2)  # type: ignore[attr-defined]
    shown = open_picture(tmp_path / "a.jpg")
    red, green, _ = shown.getpixel((0, 0))  # type: ignore[misc]
    assert (shown.mode, shown.size) == ("RGB", (24, 40)) and red > 240 and green < 20


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "L", "P", "PA", "CMYK", "YCbCr", "LAB", "I;16", "1"])
def test_every_mode_becomes_rgb(tmp_path: Path, name: str, mode: str) -> None:
    """White, opaque, in whatever modes the format can hold; dropping transparency keeps a mode that turns to RGB."""
    picture = Image.new("I;16", (6, 4), 65535) if mode == "I;16" else Image.new("RGB", (6, 4), "white").convert(mode)
    try:
        shown = saved(tmp_path, name, picture)
    except (OSError, KeyError):  # the format has no such mode
        return
    assert all(level >= 253 for level in shown.getpixel((5, 3)))  # type: ignore[union-attr]
    dropped = open_picture(tmp_path / name, alpha="drop").convert("RGB")
    assert all(level >= 253 for level in dropped.getpixel((5, 3)))  # type: ignore[union-attr]


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
def test_dropped_transparency_shows_what_lies_under_it(tmp_path: Path, mode: str) -> None:
    picture = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    if mode == "P":
        picture = Image.new("P", (4, 4), 0)
        picture.putpalette([*RED, *GREEN])
        picture.save(tmp_path / "a.png", transparency=0)
    else:
        picture.convert(mode).save(tmp_path / "a.png")
    assert open_picture(tmp_path / "a.png").getpixel((0, 0)) == WHITE
    under = open_picture(tmp_path / "a.png", alpha="drop").convert("RGB").getpixel((0, 0))
    assert under == ((76, 76, 76) if mode == "LA" else RED)


def packed(levels: np.ndarray, bits: int) -> list[bytes]:
    """Rows of levels, each of so many bits, the highest bit first; rows end with whole bytes."""
    planes = (levels.reshape(len(levels), -1, 1) >> np.arange(bits - 1, -1, -1)) & 1
    return [np.packbits(row.reshape(-1).astype(np.uint8)).tobytes() for row in planes]


def png_of(levels: np.ndarray, bits: int, **chunks: bytes) -> bytes:
    """A PNG as Pillow doesn't write it: grey [H, W] or colour [H, W, 3], of any depth, with further chunks."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = levels.shape[:2]
    head = struct.pack(">IIBBBBB", width, height, bits, 2 if levels.ndim == 3 else 0, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in packed(levels.astype(int), bits)))
    more = b"".join(chunk(kind.encode(), content) for kind, content in chunks.items())
    parts = chunk(b"IHDR", head) + more + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def tiff_of(levels: np.ndarray, bits: int, photometric: int = 1) -> bytes:
    """A grey TIFF, little-endian. ``photometric`` 0: white is zero."""
    height, width = levels.shape
    data = levels.astype("<u2").tobytes() if bits == 16 else b"".join(packed(levels.astype(int), bits))
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8 + 2 + 9 * 12 + 4, 277: 1, 278: height}
    tags[279] = len(data)
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


SCENE = np.asarray(scene(3, 16).convert("L"))
EIGHT = Image.fromarray(SCENE)


def levels_of(bits: int) -> np.ndarray:
    return np.round(SCENE / 255 * (2**bits - 1)).astype(int)


DRESSINGS = {
    **{f"PNG of {bits} bits": (png_of(levels_of(bits), bits), 128 / (2**bits - 1)) for bits in (1, 2, 4, 8, 16)},
    **{f"TIFF of {bits} bits": (tiff_of(levels_of(bits), bits), 1) for bits in (8, 12, 16)},
    **{f"TIFF of {bits} bits, white is zero": (tiff_of(2**bits - 1 - levels_of(bits), bits, 0), 1) for bits in (8, 16)},
    "TIFF, big-endian": (encoded(Image.fromarray(levels_of(16).astype(">u2")), "TIFF"), 1),
    "PGM of 12 bits": (b"P5 16 16 4095\n" + levels_of(12).astype(">u2").tobytes(), 1),
    "LA": (encoded(EIGHT.convert("LA")), 0),
    "RGBA": (encoded(EIGHT.convert("RGBA")), 0),
    "palette": (encoded(EIGHT.convert("P")), 0),
    "16 bits of colour": (png_of(np.stack([levels_of(16)] * 3, -1), 16), 1),
    "CMYK": (encoded(EIGHT.convert("RGB").convert("CMYK"), "TIFF"), 2),
    "WebP": (encoded(EIGHT, "WEBP", lossless=True), 0),
    "GIF": (encoded(EIGHT, "GIF"), 0),
    "BMP": (encoded(EIGHT, "BMP"), 0),
    "JPEG 2000": (encoded(EIGHT, "JPEG2000"), 1),
    "JPEG": (encoded(EIGHT, "JPEG", quality=95), 12),
    "two megabytes of packed XMP": (encoded(EIGHT, pnginfo=history()), 0),
}


@pytest.mark.parametrize("dressing", DRESSINGS)
@pytest.mark.parametrize("alpha", ["white", "drop"])
def test_one_scene_in_every_depth_and_format(dressing: str, alpha: Any) -> None:
    content, tolerance = DRESSINGS[dressing]
    shown = np.asarray(read_picture(content, "a", alpha).convert("RGB")).astype(int)
    assert np.abs(shown - SCENE[..., None]).max() <= tolerance


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
@pytest.mark.parametrize("colour", [False, True])
def test_one_level_that_is_transparent(bits: int, colour: bool) -> None:
    """Counted as the file counts, not as 8 bits."""
    if colour and bits < 8:
        return
    black, clear = 0, 2**bits - 2
    levels = np.array([[black, clear]])
    levels, level = (np.stack([levels] * 3, -1), [clear] * 3) if colour else (levels, [clear])
    content = png_of(levels, bits, tRNS=struct.pack(f">{len(level)}H", *level))
    assert np.asarray(read_picture(content, "a"))[0, :, 0].tolist() == [0, 255]
    under = np.asarray(read_picture(content, "a", "drop").convert("RGB"))[0, 1, 0]
    assert abs(int(under) - 255 * clear / (2**bits - 1)) <= 1


def test_a_palette_with_a_profile_whose_transparency_is_dropped(display_p3: bytes) -> None:
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette(STORED)
    for clear in ({}, {"transparency": 0}):
        shown = read_picture(encoded(palette, icc_profile=display_p3, **clear), "a.png", "drop")
        assert shown.convert("RGB").getpixel((0, 0)) == SEEN


SAYS = {
    "Display P3 by cICP": (png_of(SCENE, 8, cICP=bytes([12, 13, 0, 1])), True),
    "sRGB by cICP": (png_of(SCENE, 8, cICP=bytes([1, 13, 0, 1])), False),
    "PQ by cICP": (png_of(SCENE, 8, cICP=bytes([9, 16, 0, 1]), sRGB=b"\0"), True),
    "linear by gAMA": (png_of(SCENE, 8, gAMA=struct.pack(">I", 100000)), True),
    "sRGB's gAMA": (png_of(SCENE, 8, gAMA=struct.pack(">I", 45455)), False),
    "wide by cHRM": (
        png_of(SCENE, 8, cHRM=struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)),
        True,
    ),
    "gAMA beside sRGB": (png_of(SCENE, 8, sRGB=b"\0", gAMA=struct.pack(">I", 100000)), False),
    "Display P3 by nclx": (
        b"\0\0\0\x1cftypavif" + bytes(99) + b"colrnclx" + struct.pack(">HHHB", 12, 13, 1, 128),
        True,
    ),
    "sRGB by nclx": (encoded(Image.new("RGB", (16, 16)), "AVIF"), False),
    "nothing": (png_of(SCENE, 8), False),
    "a JPEG": (encoded(EIGHT, "JPEG"), False),
    "cut short": (png_of(SCENE, 8, gAMA=b"\0")[:40], False),
}


@pytest.mark.parametrize("name", SAYS)
def test_colours_that_are_said_in_other_ways_than_a_profile(name: str) -> None:
    content, unread = SAYS[name]
    assert unread_colours(content) is unread


def test_sixteen_bit_colour_keeps_its_levels() -> None:
    """Pillow itself reads 16-bit RGB as 8."""
    levels = np.array([[[0, 257 * 100, 65535]]])
    assert read_picture(png_of(levels, 16), "a.png").getpixel((0, 0)) == (0, 100, 255)


@pytest.mark.parametrize("mode", ["1", "L"])
def test_grey(tmp_path: Path, mode: str) -> None:
    assert saved(tmp_path, "a.png", Image.new(mode, (4, 4), 255)).getpixel((0, 0)) == WHITE


def test_missing_and_directory(tmp_path: Path) -> None:
    for path, says in ((tmp_path / "none.png", "no such picture"), (tmp_path, "is a folder; name a picture")):
        with pytest.raises(UserError, match=says) as caught:
            open_picture(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_no_picture(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(UserError, match="bad.png") as caught:
        open_picture(tmp_path / "bad.png")
    assert "\n" not in str(caught.value) and "BytesIO" not in str(caught.value)


@pytest.mark.parametrize("name", ["cut.png", "cut.jpg"])
def test_cut_short(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=name):
        open_picture(tmp_path / name)


@pytest.mark.parametrize("limit", [99, 40])  # Pillow warns above the limit and refuses above its double
def test_decompression_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    Image.new("RGB", (10, 10)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(UserError, match="bomb.png.*pixels"):
        open_picture(tmp_path / "bomb.png")


def test_float_pixels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), dtype=np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(UserError, match="32-bit"):
        open_picture(tmp_path / "a.tiff")


@pytest.mark.parametrize("kind", [5, 12, 7, 99])
@pytest.mark.parametrize("turned", [True, False])
def test_a_damaged_tag_does_not_damage_the_picture(tmp_path: Path, kind: int, turned: bool) -> None:
    """The camera's model as a number of ``kind`` (5: rational, which libraries can't write as text) beside the turn."""
    entries = [struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)] if turned else []
    entries.insert(0, struct.pack("<HHII", 0x0110, kind, 1, 64))
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + bytes(64)
    picture = Image.new("RGB", (40, 20), GREEN)
    picture.paste(RED, (0, 0, 8, 8))
    picture.save(tmp_path / "a.jpg", exif=exif, quality=95)
    shown = open_picture(tmp_path / "a.jpg")
    assert shown.size == ((20, 40) if turned else (40, 20))
    red, green, _ = shown.getpixel((17, 2) if turned else (2, 2))
    assert red > 240 and green < 20


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


def test_sixteen_bits_of_pgm(tmp_path: Path) -> None:
    """Pillow has them as 32; 1023 is white where the file says that it is."""
    levels = np.array([[0, 512], [768, 1023]], ">u2")
    (tmp_path / "a.pgm").write_bytes(b"P5 2 2 1023\n" + levels.tobytes())
    assert np.asarray(open_picture(tmp_path / "a.pgm"))[..., 0].tolist() == [[0, 127], [191, 255]]
